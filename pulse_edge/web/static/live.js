// Follows a reading, or the list of readings, by server-sent events. Progress and streaming text come
// from the event itself; when anything else changes, the page is fetched again and the parts whose
// version changed are replaced. So the server's templates are the only ones.

const COALESCE = 400; // ms between two fetches of the page

export function follow(page, prepare) {
  const announce = document.getElementById("announce");
  const lost = document.querySelector("[data-lost-notice]");
  let shown = null;
  let timer = null;

  let source = null;

  connect();
  // Browsers allow six connections to a server, so only the tab that is looked at holds one.
  document.addEventListener("visibilitychange", () => (document.hidden ? source.close() : connect()));
  window.addEventListener("pagehide", () => source.close());
  window.addEventListener("pageshow", (event) => event.persisted && connect());

  function connect() {
    source?.close();
    source = new EventSource(page.dataset.events);
    source.addEventListener("open", () => setLost(false));
    source.addEventListener("error", () => setLost(true));
    source.addEventListener("message", receive);
    source.addEventListener("reading", receive);
  }

  function receive(event) {
    setLost(false);
    const reading = JSON.parse(event.data);
    if (page.dataset.state === undefined) return refreshSoon(); // the list
    if (reading.state === "removed") return location.assign("/" + new URL(page.dataset.page, location).search);
    showProgress(reading.progress);
    stream(document.querySelector("[data-stream]"), reading.text);
    for (const turn of reading.turns ?? []) {
      if (turn.state === "running") stream(document.querySelector(`[data-turn="${turn.number}"]`), turn.text);
    }
    const structure = structureOf(reading);
    if (structure !== shown) {
      const first = shown === null;
      shown = structure;
      refreshSoon();
      if (!first && reading.state === "done" && page.dataset.state !== "done" && announce) {
        announce.textContent = announce.dataset.done;
      }
      page.dataset.state = reading.state;
    }
  }

  function refreshSoon() {
    timer ??= setTimeout(async () => {
      timer = null;
      try {
        await refresh(page.dataset.page, prepare);
      } catch {
        shown = null; // the next event tries again
      }
    }, COALESCE);
  }

  function setLost(isLost) {
    if (!lost || lost.hidden !== isLost) return;
    lost.hidden = !isLost;
    if (announce) announce.textContent = isLost ? announce.dataset.lost : "";
  }
}

// What of a reading needs the page's structure to change.
function structureOf(reading) {
  return JSON.stringify([
    reading.state,
    reading.place,
    !!reading.admission,
    !!reading.measurements,
    reading.pictures,
    !!reading.report,
    reading.progress?.stage === "log", // the page says why the log cannot be written
    (reading.notices ?? []).length,
    reading.confirmation?.number ?? !!reading.confirmation,
    (reading.turns ?? []).map((turn) => turn.state),
  ]);
}

async function refresh(address, prepare) {
  const response = await fetch(address, { headers: { Accept: "text/html" } });
  if (!response.ok) throw new Error(`${response.status}`);
  const judged = document.querySelector("#admission h2");
  const next = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = next.getElementById(part.id);
    if (fresh && fresh.dataset.version !== part.dataset.version && !part.querySelector("[data-dirty]")) {
      replace(part, fresh, prepare);
    }
  }
  document.title = next.title;
  const verdict = document.querySelector("#admission h2");
  if (!judged && verdict) document.getElementById("announce").textContent = verdict.textContent;
}

// Replaces a part; what the reader opened stays open, and the focus stays where it was.
function replace(part, fresh, prepare) {
  const open = [...part.querySelectorAll("details")].map((details) => details.open);
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const name = focused?.getAttribute("name") ?? focused?.getAttribute("href");
  part.replaceWith(fresh);
  const details = fresh.querySelectorAll("details");
  if (details.length === open.length) details.forEach((element, n) => (element.open = open[n]));
  prepare(fresh);
  if (focused) {
    const same = name && fresh.querySelector(`[name="${CSS.escape(name)}"], [href="${CSS.escape(name)}"]`);
    (same || document.getElementById("main")).focus();
  }
}

function stream(element, text) {
  if (element && text !== undefined && element.textContent !== text) element.textContent = text;
}

function showProgress(progress) {
  if (!progress) return;
  for (const section of document.querySelectorAll("[data-progress]")) {
    const stage = section.querySelector("[data-stage]");
    const words = JSON.parse(section.dataset.stages)[progress.stage];
    if (words && stage.textContent !== words) stage.textContent = words; // announced once a stage
    const bar = section.querySelector("progress");
    if (progress.total) {
      bar.max = progress.total;
      bar.value = progress.done;
    } else {
      bar.removeAttribute("value");
    }
    section.querySelector("[data-left]").textContent = timeLeft(section, progress.seconds_left);
  }
}

function timeLeft(section, seconds) {
  if (seconds === null || seconds === undefined) return "";
  const short = Math.round(seconds) < 90;
  const number = short ? Math.max(1, Math.round(seconds)) : Math.round(seconds / 60);
  return (short ? section.dataset.seconds : section.dataset.minutes).replace("{number}", number);
}
