"use strict";
// Everything from the data becomes text of the page, never markup: only textContent and attributes are set.
(() => {
const $ = id => document.getElementById(id);
const data = JSON.parse($("viewer-data").textContent);
const MOST_TURNS_PER_S = 60;

function bytes(text) {
  return Uint8Array.from(atob(text), character => character.charCodeAt(0));
}
async function unpack(text) {
  const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
let library = null;
function niivue() {  // unpacked and run once, when a viewer comes into sight
  library ??= unpack($("niivue").textContent).then(content => {
    const script = document.createElement("script");
    script.textContent = new TextDecoder().decode(content);
    document.head.append(script);
    return globalThis.niivue;
  });
  return library;
}
function options(select, names) {
  select.replaceChildren(...names.map((name, i) => {
    const made = document.createElement("option");
    made.value = i;
    made.textContent = name;
    return made;
  }));
}
function pageColour() {
  const parts = getComputedStyle(document.body).backgroundColor.match(/[\d.]+/g).slice(0, 3);
  return [...parts.map(part => part / 255), 1];
}
async function viewer(canvas, settings) {
  const {Niivue} = await niivue();
  const made = new Niivue({
    backColor: pageColour(), isResizeCanvas: true, dragAndDropEnabled: false, loadingText: "", logLevel: "error", ...settings,
  });
  await made.attachToCanvas(canvas, true);
  canvas.parentElement.style.backgroundColor = "";
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    made.opts.backColor = pageColour();
    made.drawScene();
  });
  return made;
}
function whenSeen(element, start) {
  element.hidden = false;
  const watch = new IntersectionObserver(entries => {
    if (!entries.some(entry => entry.isIntersecting)) return;
    watch.disconnect();
    start().then(() => { element.dataset.ready = ""; }, error => {
      element.hidden = true;
      withoutViewer();
      console.warn(error);
    });
  }, {rootMargin: "200px"});
  watch.observe(element);
}
function withoutViewer() {
  document.querySelectorAll(".no-viewer").forEach(note => { note.hidden = false; });
  document.querySelectorAll("button.turn").forEach(button => { button.hidden = true; });
}

// ------------------------------------------------------------------------------------------ surfaces
async function surfaces() {
  const {surfaces: sides, maps, stepMm} = data.surface;
  const {NVMesh} = await niivue();
  const nv = await viewer($("surface-canvas"), {show3Dcrosshair: false, isOrientationTextVisible: false});
  nv.setSliceType(nv.sliceTypeRender);
  const labels = [];
  for (const side of sides) {
    const [points, triangles, parcels] = await Promise.all([side.points, side.triangles, side.labels].map(unpack));
    const places = Float32Array.from(new Int32Array(points), value => value * stepMm);
    labels.push(new Uint16Array(parcels));
    const grey = new Uint8Array(4 * places.length / 3).fill(200);
    const mesh = new NVMesh(places, new Uint32Array(triangles), labels.length === 1 ? "left" : "right", grey, 1, true, nv.gl);
    nv.addMesh(mesh);
    nv.setMeshShader(mesh.id, "Matte");
  }
  const choose = $("surface-map"), side = $("surface-side"), from = $("surface-from"), turn = $("surface-turn");
  function show() {
    const map = maps[choose.value], palette = bytes(map.palette);
    nv.meshes.forEach((mesh, i) => {
      mesh.rgba255 = new Uint8Array(4 * labels[i].length);
      labels[i].forEach((parcel, vertex) => {
        mesh.rgba255.set(palette.subarray(3 * parcel, 3 * parcel + 3), 4 * vertex);
        mesh.rgba255[4 * vertex + 3] = 255;
      });
      mesh.visible = side.value === "both" || side.value === String(i);
      mesh.updateMesh(nv.gl);
    });
    $("surface-low").textContent = map.low;
    $("surface-high").textContent = map.high;
    $("surface-scale").style.background = `linear-gradient(90deg, ${map.gradient})`;
    $("surface-canvas").setAttribute("aria-label", `Inflated cortex. ${map.name}`);
    nv.drawScene();
  }
  function look() {
    nv.setRenderAzimuthElevation(...from.value.split(",").map(Number));
  }
  function move(azimuth, elevation) {
    nv.setRenderAzimuthElevation(nv.scene.renderAzimuth + azimuth, nv.scene.renderElevation + elevation);
  }
  let last = 0;
  function step(now) {
    if (turn.getAttribute("aria-pressed") !== "true") return;
    if (now - last > 1000 / MOST_TURNS_PER_S) {
      move(last ? Math.min(2, (now - last) * 0.03) : 0, 0);
      last = now;
    }
    requestAnimationFrame(step);
  }
  choose.addEventListener("input", show);
  side.addEventListener("input", show);
  from.addEventListener("input", look);
  turn.addEventListener("click", () => {
    turn.setAttribute("aria-pressed", String(turn.getAttribute("aria-pressed") !== "true"));
    last = 0;
    requestAnimationFrame(step);
  });
  const keys = {ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, 10], ArrowDown: [0, -10]};
  $("surface-canvas").addEventListener("keydown", event => {
    if (!keys[event.key]) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    move(...keys[event.key]);
  }, true);
  show();
  look();
}

// ------------------------------------------------------------------------------------------- volumes
async function volumes() {
  const {scans, shared, parcels, colours} = data.volume;
  const {NVImage} = await niivue();
  const nv = await viewer($("volume-canvas"), {
    isRadiologicalConvention: false, multiplanarForceRender: true, crosshairWidth: 0.5, backColor: [0, 0, 0, 1],
  });
  const choose = $("volume-scan"), image = $("volume-image"), overlay = $("volume-overlay"), opacity = $("volume-opacity");
  const label = {
    R: [0, ...colours.map(colour => colour[0])], G: [0, ...colours.map(colour => colour[1])],
    B: [0, ...colours.map(colour => colour[2])], A: [0, ...colours.map(() => 255)], I: [0, ...colours.map((_, i) => i + 1)],
    labels: ["", ...parcels],
  };
  const all = () => [...scans[choose.value].volumes, ...shared];
  async function load(volume, opacityOf) {
    const made = await NVImage.loadFromBase64({
      base64: volume.nifti, name: `${volume.name}.nii.gz`, colormap: volume.kind === "mask" ? "red" : "gray", opacity: opacityOf,
      ...(volume.kind === "image" ? {cal_min: 0, cal_max: 255} : volume.kind === "mask" ? {cal_min: 0.5, cal_max: 1} : {}),
    });
    if (volume.kind === "parcels") made.setColormapLabel(label);
    return made;
  }
  let wanted = 0;
  async function show() {
    const mine = ++wanted;
    const below = all().filter(volume => volume.kind === "image")[image.value];
    const above = overlay.value === "" ? null : all()[overlay.value];
    const loaded = [await load(below, 1)];
    if (above && above !== below) loaded.push(await load(above, +opacity.value));
    if (mine !== wanted) return;  // something else was chosen meanwhile
    while (nv.volumes.length) nv.removeVolumeByIndex(nv.volumes.length - 1);
    loaded.forEach(volume => nv.addVolume(volume));
    $("volume-canvas").setAttribute("aria-label", `${below.name} of ${scans[choose.value].name}` + (above ? `, ${above.name} on it` : ""));
  }
  function fill() {
    const kept = overlay.options[overlay.selectedIndex]?.textContent ?? "parcels";
    options(image, all().filter(volume => volume.kind === "image").map(volume => volume.name));
    options(overlay, all().map(volume => volume.name));
    overlay.prepend(new Option("nothing", ""));
    overlay.selectedIndex = Math.max(0, [...overlay.options].findIndex(option => option.textContent === kept));
    return show();
  }
  nv.onLocationChange = at => {
    const place = at.mm.slice ? [...at.mm].slice(0, 3).map(value => Math.round(value)).join(", ") : "";
    const inside = at.values?.find(value => value.label)?.label;
    $("volume-place").textContent = `At ${place} mm${inside ? `: ${inside}` : ""}`;
  };
  options(choose, scans.map(scan => scan.name));
  choose.addEventListener("input", fill);
  image.addEventListener("input", show);
  overlay.addEventListener("input", show);
  opacity.addEventListener("input", () => { if (nv.volumes.length > 1) nv.setOpacity(1, +opacity.value); });
  $("volume-view").addEventListener("input", event => nv.setSliceType(+event.target.value));
  await fill();
}

// --------------------------------------------------------------------------------------------- start
// what is folded is open on paper, also in browsers that know no ::details-content
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  opened.forEach(one => { one.open = true; });
});
addEventListener("afterprint", () => opened.forEach(one => { one.open = false; }));

const drawable = "DecompressionStream" in globalThis && document.createElement("canvas").getContext("webgl2");
if (!drawable) {
  withoutViewer();
  return;
}
if (data.volume.scans.length) whenSeen($("volume-viewer"), volumes);
if (data.surface.maps.length) {
  options($("surface-map"), data.surface.maps.map(map => map.name));
  $("surface-map").value = document.querySelector("#cortex button.turn")?.dataset.map ?? 0;
  document.querySelectorAll("button.turn").forEach(button => {
    button.hidden = false;
    button.addEventListener("click", () => {
      $("surface-map").value = button.dataset.map;
      $("surface-map").dispatchEvent(new Event("input"));
      $("surface-viewer").scrollIntoView({block: "center"});
      $("surface-canvas").focus({preventScroll: true});
    });
  });
  whenSeen($("surface-viewer"), surfaces);
}
})();
