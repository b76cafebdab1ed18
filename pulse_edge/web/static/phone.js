// On a paired phone: send a picture as soon as it is taken, and show what is read on it. Each page works without this.
for (const element of document.querySelectorAll("[data-without-script]")) element.hidden = true;

const form = document.querySelector("[data-phone-upload]");
form?.addEventListener("change", () => {
  form.querySelector("[data-busy]").hidden = false;
  form.submit();
});

const page = document.querySelector("[data-phone-state]");
const POLL = 3000;
async function poll() {
  try {
    const answer = await fetch(page.dataset.phoneState, { headers: { Accept: "application/json" } });
    if (!answer.ok || (await answer.json()).version !== page.dataset.version) {
      location.reload();
      return;
    }
  } catch {
    // The laptop may be out of reach for a moment.
  }
  setTimeout(poll, POLL);
}
if (page) setTimeout(poll, POLL);
