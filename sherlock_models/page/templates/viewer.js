"use strict";
(() => {
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const number = (value, digits) => value.toFixed(digits).replace("-", "\u2212");
  const telling = (value) => (value === 0 ? "0" : Math.abs(value) < 1e-3 ? value.toExponential(2) : value.toPrecision(3)).replaceAll("-", "\u2212");
  const film = document.getElementById("film");
  let chooseRegion = () => {};

  if (film && data.stills) {
    const stills = data.stills;
    const slider = document.getElementById("film-tr");
    const select = document.getElementById("film-region");
    const said = document.getElementById("film-said");
    const panels = Object.fromEntries([...film.querySelectorAll("[data-panel]")].map((p) => [p.dataset.panel, p]));
    const put = (panel, text, alt) => {
      const image = panels[panel].querySelector("img");
      image.src = "data:image/jpeg;base64," + text;
      image.alt = alt;
    };
    const show = () => {
      const at = Number(slider.value), region = Number(select.value);
      const name = data.regions[region].name, tr = stills.trs[at];
      put("lesioned", stills.lesioned[region], "TR " + tr + " decoded without " + name);
      put("difference", stills.difference[region], "What changes at TR " + tr + " without " + name);
      for (const panel of Object.values(panels)) {
        panel.querySelector("img").style.transform = "translateY(" + (-100 * at) / stills.trs.length + "%)";
      }
      film.querySelector("[data-name]").textContent = "without " + name;
      slider.setAttribute("aria-valuetext", "TR " + tr);
      said.textContent = "TR " + tr + " (" + number(stills.seconds[at], 1) + " s), without " + name;
    };
    put("original", stills.original, "Held-out pictures as they were shown");
    put("decoded", stills.decoded, "The same pictures, decoded from the predicted brain");
    slider.addEventListener("input", show);
    select.addEventListener("change", show);
    chooseRegion = (row) => { select.value = String(row); show(); };
    show();
  }

  const box = document.getElementById("slices");
  if (!box || !data.volumes) return;
  const volumes = data.volumes, [nx, ny, nz] = volumes.shape, size = [nx, ny, nz];
  const head = bytes(volumes.head), region = bytes(volumes.region);
  const palettes = Object.fromEntries(Object.entries(volumes.palettes).map(([k, v]) => [k, bytes(v)]));
  const maps = volumes.maps.map((map) => ({ ...map, values: bytes(map.data) }));
  const select = document.getElementById("slice-map");
  const said = document.getElementById("slice-said");
  const sliders = ["x", "y", "z"].map((axis) => document.getElementById("slice-" + axis));
  const canvases = ["x", "y", "z"].map((axis) => document.getElementById("canvas-" + axis));
  const cell = (p) => (p[0] * ny + p[1]) * nz + p[2];
  const mm = (p) => [0, 1, 2].map((r) => volumes.affine[r][0] * p[0] + volumes.affine[r][1] * p[1] + volumes.affine[r][2] * p[2] + volumes.affine[r][3]);
  const strongest = (map) => {
    let best = 0, at = cell(size.map((n) => Math.floor(n / 2)));
    map.values.forEach((value, index) => { if (value > best) { best = value; at = index; } });
    return [Math.floor(at / (ny * nz)), Math.floor(at / nz) % ny, at % nz];
  };
  let place = strongest(maps[0]);
  // axes across and up of each slice: sagittal y, z; coronal x, z; axial x, y
  const planes = [[1, 2], [0, 2], [0, 1]];

  const draw = () => {
    const map = maps[Number(select.value)], palette = palettes[map.kind];
    planes.forEach(([across, up], axis) => {
      const w = size[across], h = size[up], canvas = canvases[axis];
      // a cell is several dots wide, so that the cross can be thin
      const dots = Math.max(1, Math.ceil(320 / w)), context = canvas.getContext("2d");
      const image = context.createImageData(w, h);
      canvas.width = w * dots; canvas.height = h * dots;
      const p = [...place];
      for (let v = 0; v < h; v++) {
        for (let u = 0; u < w; u++) {
          p[across] = u; p[up] = v;
          const index = cell(p), to = 4 * ((h - 1 - v) * w + u), level = map.values[index];
          for (let c = 0; c < 3; c++) {
            image.data[to + c] = level ? palette[3 * level + c] : head[index] * 0.6;
          }
          image.data[to + 3] = 255;
        }
      }
      context.putImageData(image, 0, 0);
      context.imageSmoothingEnabled = false;
      context.globalCompositeOperation = "copy";
      context.drawImage(canvas, 0, 0, w, h, 0, 0, w * dots, h * dots);
      context.globalCompositeOperation = "source-over";
      const middle = (n) => Math.floor((n + 0.5) * dots);
      for (const [width, colour] of [[3, "#000a"], [1, "#fff"]]) {
        context.fillStyle = colour;
        context.fillRect(middle(place[across]) - (width - 1) / 2, 0, width, h * dots);
        context.fillRect(0, middle(h - 1 - place[up]) - (width - 1) / 2, w * dots, width);
      }
    });
    const [x, y, z] = mm(place).map((value) => number(value, 0)), level = map.values[cell(place)];
    const value = map.low + ((level - 1) / 254) * (map.high - map.low);
    const row = region[cell(place)] - 1;
    said.textContent = "x " + x + ", y " + y + ", z " + z + " mm: " +
      (level ? map.title + " " + telling(value) : "nothing measured") + (row >= 0 ? ", " + data.regions[row].name : "");
    sliders.forEach((slider, axis) => {
      slider.max = size[axis] - 1; slider.value = place[axis];
      slider.setAttribute("aria-valuetext", number(mm(place)[axis], 0) + " mm");
    });
    document.getElementById("slice-low").textContent = telling(map.low);
    document.getElementById("slice-high").textContent = telling(map.high);
    const bar = document.getElementById("slice-bar");
    bar.width = 255; bar.height = 1;
    const context = bar.getContext("2d"), strip = context.createImageData(255, 1);
    for (let i = 0; i < 255; i++) {
      for (let c = 0; c < 3; c++) strip.data[4 * i + c] = palette[3 * (i + 1) + c];
      strip.data[4 * i + 3] = 255;
    }
    context.putImageData(strip, 0, 0);
  };
  const move = (to) => {
    place = to; draw();
    const row = region[cell(place)] - 1;
    if (row >= 0) chooseRegion(row);
  };
  maps.forEach((map, row) => select.add(new Option(map.title, String(row))));
  select.addEventListener("change", () => move(strongest(maps[Number(select.value)])));
  sliders.forEach((slider, axis) => slider.addEventListener("input", () => {
    const to = [...place]; to[axis] = Number(slider.value); move(to);
  }));
  canvases.forEach((canvas, axis) => canvas.addEventListener("click", (event) => {
    const [across, up] = planes[axis], edge = canvas.getBoundingClientRect(), to = [...place];
    const clamp = (value, n) => Math.min(n - 1, Math.max(0, Math.floor(value)));
    to[across] = clamp(((event.clientX - edge.left) / edge.width) * size[across], size[across]);
    to[up] = clamp((1 - (event.clientY - edge.top) / edge.height) * size[up], size[up]);
    move(to);
  }));
  move(place);
})();
