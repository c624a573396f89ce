// Draws a cone on the map by pressing on its center and dragging, and copies two lines. All else is plain HTML.
"use strict";

const rad = Math.PI / 180;

// The same as `View.unproject` of the server: null outside the sky.
function position(view, x, y) {
  if (view.radius === null) {
    if ((x / 2) ** 2 + y ** 2 > 1) return null;
    const theta = Math.asin(y);
    const dec = Math.asin(Math.max(-1, Math.min(1, (2 * theta + Math.sin(2 * theta)) / Math.PI)));
    const lon = (-x * Math.PI) / 2 / Math.max(Math.cos(theta), 1e-9);
    return { ra: (((view.ra + lon / rad) % 360) + 360) % 360, dec: dec / rad };
  }
  const distance = Math.max(Math.hypot(x, y) * view.scale, 1e-12);
  if (distance > 2) return null;
  const angle = 2 * Math.asin(distance / 2);
  const [east, up, lat0] = [-x * view.scale, y * view.scale, view.dec * rad];
  const sine = Math.cos(angle) * Math.sin(lat0) + (up * Math.sin(angle) * Math.cos(lat0)) / distance;
  const lon = Math.atan2(
    east * Math.sin(angle),
    distance * Math.cos(lat0) * Math.cos(angle) - up * Math.sin(lat0) * Math.sin(angle),
  );
  return { ra: (((view.ra + lon / rad) % 360) + 360) % 360, dec: Math.asin(Math.max(-1, Math.min(1, sine))) / rad };
}

function separation(a, b) {
  const haversine =
    Math.sin(((a.dec - b.dec) * rad) / 2) ** 2 +
    Math.cos(a.dec * rad) * Math.cos(b.dec * rad) * Math.sin(((a.ra - b.ra) * rad) / 2) ** 2;
  return (2 * Math.asin(Math.sqrt(Math.min(1, haversine)))) / rad;
}

function chooseOnSky(map) {
  const form = document.getElementById("filters");
  const [drawn, pointer] = [document.getElementById("drawn"), document.getElementById("pointer")];
  const view = {
    ra: Number(map.dataset.ra),
    dec: Number(map.dataset.dec),
    radius: map.dataset.radius === "" ? null : Number(map.dataset.radius),
    scale: Number(map.dataset.scale),
  };
  let start = null;
  const place = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(map.getScreenCTM().inverse());
    return { x: at.x, y: at.y, sky: position(view, at.x, -at.y) };
  };
  map.addEventListener("pointerdown", (event) => {
    start = place(event);
    if (start.sky === null) start = null;
    else map.setPointerCapture(event.pointerId);
  });
  map.addEventListener("pointermove", (event) => {
    const now = place(event);
    pointer.textContent = now.sky ? `RA ${now.sky.ra.toFixed(3)}°, Dec ${now.sky.dec.toFixed(3)}°` : "";
    if (start === null) return;
    drawn.setAttribute("cx", start.x);
    drawn.setAttribute("cy", start.y);
    drawn.setAttribute("r", Math.hypot(now.x - start.x, now.y - start.y));
  });
  map.addEventListener("pointercancel", () => {
    start = null;
    drawn.setAttribute("r", 0);
  });
  map.addEventListener("pointerup", (event) => {
    if (start === null) return;
    const [center, end] = [start.sky, place(event).sky];
    start = null;
    const dragged = end === null ? 0 : separation(center, end);
    const finest = (view.radius ?? 90) / 100;
    const kept = Number(form.elements.radius.value) || (view.radius ?? 90) / 6;
    form.elements.ra.value = center.ra.toFixed(5);
    form.elements.dec.value = center.dec.toFixed(5);
    form.elements.radius.value = Number((dragged > finest ? dragged : kept).toPrecision(4));
    form.requestSubmit();
  });
}

function offerCopy(code) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy ${code.id}`);
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  });
  code.parentElement.after(button);
}

// Checking a galaxy selects the checked galaxies for the download.
function takeChecked(form) {
  document.addEventListener("change", (event) => {
    if (event.target.matches("input[type=checkbox][name=galaxy]")) form.elements.take.value = "checked";
    if (event.target.matches("input[name=count]")) form.elements.take.value = "first";
  });
}

// Omit empty fields from the address.
function tidy(form) {
  form.addEventListener("formdata", (event) => {
    for (const [name, value] of [...event.formData]) if (value === "") event.formData.delete(name);
  });
}

const map = document.getElementById("sky");
if (map) chooseOnSky(map);
for (const id of ["python", "command"]) {
  const code = document.getElementById(id);
  if (code && navigator.clipboard) offerCopy(code);
}
const taking = document.getElementById("export");
if (taking) takeChecked(taking);
const filters = document.getElementById("filters");
if (filters) tidy(filters);
