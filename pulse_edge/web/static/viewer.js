// Zoom, pan and calipers on the pictures of the page. All panes move together.
// Positions are shares of the page's width and height, so that they hold at every zoom and in both pictures.

const MAX_ZOOM = 12;

export function prepareViewer(viewer) {
  if (viewer.dataset.ready) return;
  viewer.dataset.ready = "1";
  const panes = viewer.querySelector(".panes");
  const frames = [...viewer.querySelectorAll("[data-frame]")];
  const view = { zoom: 1, x: 0, y: 0 }; // x, y: share of the page at the frame's left and top edge

  for (const frame of frames) prepareFrame(frame);
  for (const radio of viewer.querySelectorAll('[name="view"]')) {
    radio.addEventListener("change", () => choose(radio.value));
  }
  choose(viewer.querySelector('[name="view"]:checked')?.value ?? "both");
  for (const button of viewer.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => {
      if (button.dataset.zoom === "fit") fit();
      else zoomAt(button.dataset.zoom === "in" ? 1.5 : 1 / 1.5, 0.5, 0.5);
    });
  }
  const calipers = prepareCalipers(viewer, frames, view);

  function choose(name) {
    panes.dataset.view = name;
  }

  function fit() {
    Object.assign(view, { zoom: 1, x: 0, y: 0 });
    draw();
  }

  // Zooms by a factor; the point at shares (across, down) of the frame stays where it is.
  function zoomAt(factor, across, down) {
    const zoom = Math.min(MAX_ZOOM, Math.max(1, view.zoom * factor));
    view.x += across / view.zoom - across / zoom;
    view.y += down / view.zoom - down / zoom;
    view.zoom = zoom;
    draw();
  }

  function move(across, down) {
    view.x += across / view.zoom;
    view.y += down / view.zoom;
    draw();
  }

  function draw() {
    const room = 1 - 1 / view.zoom;
    view.x = Math.min(room, Math.max(0, view.x));
    view.y = Math.min(room, Math.max(0, view.y));
    for (const frame of frames) {
      const sheet = frame.querySelector("[data-sheet]");
      const share = (value) => `${-100 * value * view.zoom}%`;
      sheet.style.transform = view.zoom === 1 ? "" : `translate(${share(view.x)}, ${share(view.y)}) scale(${view.zoom})`;
      frame.classList.toggle("near", view.zoom > 1);
    }
    calipers.draw();
  }

  function prepareFrame(frame) {
    frame.classList.add("live");
    frame.tabIndex = 0;
    frame.setAttribute("role", "application");
    frame.setAttribute("aria-label", frame.dataset.label);
    frame.addEventListener("keydown", (event) => {
      if (event.target !== frame || event.ctrlKey || event.metaKey || event.altKey) return;
      const action = {
        ArrowLeft: () => move(-0.1, 0),
        ArrowRight: () => move(0.1, 0),
        ArrowUp: () => move(0, -0.1),
        ArrowDown: () => move(0, 0.1),
        "+": () => zoomAt(1.5, 0.5, 0.5),
        "=": () => zoomAt(1.5, 0.5, 0.5),
        "-": () => zoomAt(1 / 1.5, 0.5, 0.5),
        0: fit,
      }[event.key];
      if (!action || (view.zoom === 1 && event.key.startsWith("Arrow"))) return; // arrows scroll the page
      event.preventDefault();
      action();
    });
    frame.addEventListener("dblclick", (event) => {
      const [across, down] = shares(frame, event);
      if (view.zoom > 1) fit();
      else zoomAt(3, across, down);
    });
    frame.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey) return; // the plain wheel scrolls the page
        event.preventDefault();
        zoomAt(Math.exp(-event.deltaY / 200), ...shares(frame, event));
      },
      { passive: false },
    );
    drag(frame);
  }

  // One pointer moves the page, two zoom it.
  function drag(frame) {
    const pointers = new Map();
    frame.addEventListener("pointerdown", (event) => {
      if (event.target.closest("button")) return;
      pointers.set(event.pointerId, shares(frame, event));
      if (view.zoom > 1 || pointers.size > 1) frame.setPointerCapture(event.pointerId);
    });
    frame.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const now = shares(frame, event);
      if (pointers.size === 2) {
        const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
        zoomAt(distance(now, other) / (distance(before, other) || 1), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      } else {
        move(before[0] - now[0], before[1] - now[1]);
      }
      pointers.set(event.pointerId, now);
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      frame.addEventListener(end, (event) => pointers.delete(event.pointerId));
    }
  }
}

function distance(a, b) {
  return Math.hypot(a[0] - b[0], a[1] - b[1]);
}

function shares(frame, event) {
  const box = frame.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

// --- calipers --------------------------------------------------------------------------------------

function prepareCalipers(viewer, frames, view) {
  const button = viewer.querySelector("[data-calipers]");
  if (!button) return { draw() {} };
  const { across, down, speed, gain } = Object.fromEntries(
    Object.entries(viewer.dataset).map(([name, value]) => [name, Number(value)]),
  );
  const result = viewer.querySelector("[data-caliper-result]");
  const hint = viewer.querySelector("[data-caliper-hint]");
  const names = JSON.parse(result.dataset.points);
  let points = null; // two [x, y], shares of the page
  const boxes = frames.map((frame) => box(frame));

  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    for (const element of [result, hint, ...boxes.map((b) => b.layer)]) element.hidden = !on;
    if (!on) return;
    const [x, y] = [view.x + 0.5 / view.zoom, view.y + 0.5 / view.zoom];
    points = [[x, y], [x + millimetres(20, 0)[0], y + millimetres(0, 10)[1]]].map(inside);
    draw();
    boxes.find((b) => b.frame.offsetParent)?.handles[0].focus({ preventScroll: true });
  });

  // The picture of the flat page has its own pixels; other pictures of it show the same shares.
  function millimetres(right, below) {
    const page = frames.at(-1).querySelector("img"); // the original comes last
    return [(right * across) / page.naturalWidth, (below * down) / page.naturalHeight];
  }

  function box(frame) {
    const layer = document.createElement("div");
    layer.className = "box";
    layer.hidden = true;
    const area = document.createElement("div");
    area.className = "area";
    layer.append(area);
    const handles = names.map((name, number) => {
      const handle = document.createElement("button");
      handle.type = "button";
      handle.className = "point";
      handle.setAttribute("aria-label", name);
      handle.addEventListener("keydown", (event) => step(event, number));
      handle.addEventListener("pointerdown", (event) => {
        event.stopPropagation();
        handle.setPointerCapture(event.pointerId);
      });
      handle.addEventListener("pointermove", (event) => {
        if (!handle.hasPointerCapture(event.pointerId)) return;
        const [x, y] = shares(frame, event);
        set(number, [view.x + x / view.zoom, view.y + y / view.zoom]);
      });
      handle.addEventListener("dblclick", (event) => event.stopPropagation());
      layer.append(handle);
      return handle;
    });
    frame.append(layer);
    return { frame, layer, area, handles };
  }

  // Arrow keys move a point by a quarter of a millimetre, with Shift by five.
  function step(event, number) {
    const size = event.shiftKey ? 5 : 0.25;
    const by = { ArrowLeft: [-size, 0], ArrowRight: [size, 0], ArrowUp: [0, -size], ArrowDown: [0, size] }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    const [x, y] = millimetres(...by);
    set(number, [points[number][0] + x, points[number][1] + y]);
  }

  function set(number, point) {
    points[number] = inside(point);
    draw();
  }

  function inside(point) {
    return point.map((share) => Math.min(1, Math.max(0, share)));
  }

  function draw() {
    if (!points || button.getAttribute("aria-pressed") !== "true") return;
    const percent = (share) => `${100 * share}%`;
    const shown = points.map(([x, y]) => [(x - view.x) * view.zoom, (y - view.y) * view.zoom]);
    const [left, right] = shown.map((p) => p[0]).sort((a, b) => a - b);
    const [top, bottom] = shown.map((p) => p[1]).sort((a, b) => a - b);
    for (const { area, handles } of boxes) {
      Object.assign(area.style, { left: percent(left), top: percent(top), width: percent(right - left), height: percent(bottom - top) });
      handles.forEach((handle, n) => Object.assign(handle.style, { left: percent(shown[n][0]), top: percent(shown[n][1]) }));
    }
    const unit = millimetres(1, 1);
    const ms = (Math.abs(points[1][0] - points[0][0]) / unit[0] / speed) * 1000;
    const mv = Math.abs(points[1][1] - points[0][1]) / unit[1] / gain;
    result.textContent = result.dataset.text
      .replace("{ms}", Math.round(ms))
      .replace("{bpm}", ms >= 100 ? Math.round(60000 / ms) : "–")
      .replace("{mv}", mv.toFixed(2));
  }

  return { draw };
}
