// Files that are dropped, pasted or chosen are sent at once with the form they belong to.

export function prepareUploads(root) {
  for (const form of root.querySelectorAll("form[data-upload]")) prepareUpload(form);
}

function prepareUpload(form) {
  const drop = form.querySelector(".drop");
  const first = form.querySelector('input[type="file"]');

  for (const input of form.querySelectorAll('input[type="file"]')) {
    input.addEventListener("change", () => input.files.length && send(form));
  }
  const target = document.querySelectorAll("form[data-upload]").length === 1 ? document : form;
  target.addEventListener("dragover", (event) => {
    if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
    event.preventDefault();
    drop.classList.add("over");
  });
  target.addEventListener("dragleave", () => drop.classList.remove("over"));
  target.addEventListener("drop", (event) => {
    if (!form.isConnected || !event.dataTransfer?.files.length) return;
    event.preventDefault();
    take(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    if (form.isConnected && event.clipboardData?.files.length) take(event.clipboardData.files);
  });

  function take(files) {
    first.files = files;
    send(form);
  }
}

function send(form) {
  if (form.dataset.sent) return; // a second click while the first is on its way
  form.dataset.sent = "1";
  form.querySelector(".drop").classList.remove("over");
  form.querySelector("[data-busy]").hidden = false;
  for (const input of form.querySelectorAll('input[type="file"]')) {
    if (!input.files.length) input.disabled = true; // an empty part would look like an empty file
  }
  form.submit();
}

// The browser's back button shows the form as it was before it was sent.
window.addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  for (const form of document.querySelectorAll("form[data-upload]")) {
    delete form.dataset.sent;
    form.querySelector("[data-busy]").hidden = true;
    for (const input of form.querySelectorAll('input[type="file"]')) input.disabled = false;
  }
});
