// All of the page is drawn from two things: `data`, which never changes, and `state`, which is in the address.

const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 12;
const DASHES = { "-": "", "--": "7 3", ":": "2 3", "-.": "9 3 2 3" };

// elements ------------------------------------------------------------------------------------------------------------

const at = (id) => document.getElementById(id);

/** An element; text among its children stays text, whatever is in it. */
function element(create, tag, attributes, children) {
  const made = create(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name.startsWith("--") || name === "background") made.style.setProperty(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}
const h = (tag, attributes, ...children) => element((tag) => document.createElement(tag), tag, attributes, children);
const svg = (tag, attributes, ...children) =>
  element((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag), tag, attributes, children);

/** Fill a select, and say which option it shows: the wanted one, or the first. */
function fill(select, options, wanted) {
  const pairs = options.map((option) => (Array.isArray(option) ? option : [option, option]));
  const value = pairs.some(([key]) => key === wanted) ? wanted : (pairs[0]?.[0] ?? "");
  const shown = JSON.stringify(pairs);
  if (select.dataset.shown !== shown) {
    select.replaceChildren(...pairs.map(([key, text]) => h("option", { value: key }, text)));
    select.dataset.shown = shown;
  }
  select.value = value;
  return value;
}

const fixed = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const whole = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en-US"));
const spread = (mean, std) => (std === null || std === undefined ? fixed(mean) : `${fixed(mean)} ± ${fixed(std)}`);
const many = (n, what) => `${whole(n)} ${what}${n === 1 ? "" : "s"}`;
const short = (value) =>
  value >= 1e6
    ? `${+(value / 1e6).toPrecision(3)}M`
    : value >= 1e3
      ? `${+(value / 1e3).toPrecision(3)}K`
      : `${+value.toPrecision(3)}`;

// state ---------------------------------------------------------------------------------------------------------------

const DEFAULTS = {
  place: "",
  sort: "-average",
  q: "",
  controls: "1",
  majority: "1",
  x: "trainable",
  y: "average",
  curve: "",
  measure: "",
  part: "",
  group: "",
  task: "",
  seed: "all",
  filter: "all",
  a: "",
  b: "",
  find: "",
  page: "1",
  id: "",
};
const state = { ...DEFAULTS, methods: null }; // methods: names, null for the usual ones

function read() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  for (const key of Object.keys(DEFAULTS)) state[key] = parameters.get(key) ?? DEFAULTS[key];
  state.methods = parameters.has("m") ? parameters.getAll("m").filter(Boolean) : null;
}

function address(changes = {}) {
  const parameters = new URLSearchParams();
  for (const [key, value] of Object.entries({ ...state, ...changes }))
    if (key !== "methods" && value !== DEFAULTS[key]) parameters.set(key, value);
  for (const name of state.methods ?? []) parameters.append("m", name);
  if (state.methods && !state.methods.length) parameters.set("m", "");
  return `#${parameters}`;
}

function change(changes) {
  Object.assign(state, changes);
  if (location.protocol !== "about:") history.replaceState(null, "", address()); // not in a notebook's frame
  render();
}

// the chosen place and methods ----------------------------------------------------------------------------------------

const place = () => data.places.find(({ name }) => name === state.place) ?? data.places[0];
const methodsOf = (where) => where.rows.filter(({ kind }) => kind === "method");
const score = (row, task) => row.scores[task]?.[0] ?? null;

/** The keys of `of` that are tasks in the table's order, and the others. */
function inOrder(where, of) {
  const tasks = Object.keys(where.metrics).filter((task) => task in of);
  return [...tasks, ...Object.keys(of).filter((key) => !tasks.includes(key))];
}

/** Best, median and worst by average, and full fine-tuning. */
function usual(where) {
  const ranked = methodsOf(where)
    .filter((row) => score(row, "average") !== null)
    .sort((a, b) => score(b, "average") - score(a, "average"));
  const names = [0, (ranked.length - 1) >> 1, ranked.length - 1].map((index) => ranked[index]?.name);
  if (ranked.some(({ name }) => name === "full")) names.push("full");
  return [...new Set(names.filter(Boolean))];
}

function chosen() {
  const find = (names) =>
    names.map((name) => place().rows.find((row) => row.name === name)).filter((row) => row && row.kind !== "majority");
  const rows = find(state.methods ?? []);
  return rows.length || state.methods?.length === 0 ? rows : find(usual(place())); // also where none of them is here
}

function choose(name, on) {
  const names = chosen()
    .map((row) => row.name)
    .filter((other) => other !== name);
  change({ methods: on ? [...names, name] : names, page: "1", id: "" });
}

/** Colour, marker and dashes of a row: those of the figures; a control's are its method's, hollow and dotted. */
function style(row) {
  const [color, marker, dash] = row.mark,
    control = row.kind === "control";
  const seen = data.dark[color] ? `light-dark(${color}, ${data.dark[color]})` : color;
  return { color: seen, marker, dash: control ? "1 4" : DASHES[dash], hollow: control };
}

/** From where to where one standard deviation goes, within what the score can be. */
function ends(mean, std, [low, high]) {
  return [Math.max(mean - (std ?? 0), low ?? -Infinity), Math.min(mean + (std ?? 0), high ?? Infinity)];
}

/** Of each of some places, lists of numbers, how many later ones are where it is, to `near`. */
const beneath = (places, near) =>
  places.map(
    (one, i) =>
      places.slice(i + 1).filter((other) => one.length === other.length && one.every((x, k) => Math.abs(x - other[k]) < near))
        .length,
  );

const SHAPES = {
  s: (r) => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  D: (r) => `M0,${-1.3 * r}L${1.3 * r},0L0,${1.3 * r}L${-1.3 * r},0z`,
  "^": (r) => `M0,${-1.2 * r}L${1.2 * r},${r}H${-1.2 * r}z`,
  v: (r) => `M0,${1.2 * r}L${1.2 * r},${-r}H${-1.2 * r}z`,
  P: (r) => {
    const [a, b, c] = [0.45 * r, 0.75 * r, 1.2 * r]; // half an arm's width, its length, how far it reaches
    return `M${-a},${-c}h${2 * a}v${b}h${b}v${2 * a}h${-b}v${b}h${-2 * a}v${-b}h${-b}v${-2 * a}h${b}z`;
  },
  "<": (r) => `M${-1.2 * r},0L${r},${-1.2 * r}V${1.2 * r}z`,
  ">": (r) => `M${1.2 * r},0L${-r},${-1.2 * r}V${1.2 * r}z`,
  X: (r) => {
    const [a, b, c] = [0.55 * r, 1.15 * r, 0.6 * r]; // half an arm's width, how far it reaches, its inner corners
    return `M0,${-c}L${a},${-b}L${b},${-a}L${c},0L${b},${a}L${a},${b}L0,${c}L${-a},${b}L${-b},${a}L${-c},0L${-b},${-a}L${-a},${-b}z`;
  },
  d: (r) => `M0,${-1.4 * r}L${0.8 * r},0L0,${1.4 * r}L${-0.8 * r},0z`,
  "*": (r) => polygon(10, (i) => r * (i % 2 ? 0.6 : 1.5)),
  p: (r) => polygon(5, () => 1.15 * r),
  h: (r) => polygon(6, () => 1.1 * r),
  o: (r) => `M${-r},0a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0z`,
};
/** Corners around the middle, the first above it. */
function polygon(corners, radius) {
  const at = (i) => [Math.sin((2 * Math.PI * i) / corners), -Math.cos((2 * Math.PI * i) / corners)];
  const points = [...Array(corners).keys()].map((i) => at(i).map((x) => (x * radius(i)).toFixed(2)));
  return `M${points.join("L")}z`;
}
function marker(row, { x = 0, y = 0, r = 5, hollow = false } = {}) {
  const { color, marker: shape, hollow: always } = style(row);
  const paint =
    hollow || always
      ? { fill: "var(--paper)", stroke: color, "stroke-width": 1.6 }
      : { fill: color, stroke: "var(--paper)", "stroke-width": 0.8 };
  return svg("path", { d: SHAPES[shape](r), transform: `translate(${x},${y})`, ...paint });
}
const legend = (row) => svg("svg", { class: "mark", viewBox: "-7 -7 14 14", "aria-hidden": "true" }, marker(row));

// leaderboard ---------------------------------------------------------------------------------------------------------

function columns(where) {
  const scores = [...Object.keys(where.metrics), "average"].map((task) => ({
    key: task,
    small: where.metrics[task] ?? "over tasks",
    value: (row) => score(row, task),
    high: true,
    score: true,
  }));
  const ranked = where.rows.some((row) => row.rank !== null);
  const first = matchMedia("(max-width: 640px)").matches ? scores.splice(-1) : []; // on a phone the average is in sight
  return [
    { key: "method", value: (row) => row.name, text: true },
    ...first,
    { key: "trainable %", small: "of all", value: (row) => row.percent, show: (row) => fixed(row.percent) },
    { key: "parameters", small: "trainable", value: (row) => row.trainable, show: (row) => whole(row.trainable) },
    ...scores,
    ...(ranked ? [{ key: "rank", small: "over tasks", value: (row) => row.rank, show: (row) => fixed(row.rank) }] : []),
    { key: "n", small: "seeds", value: (row) => row.n, show: count, high: true },
  ];
}

function count(row) {
  if (row.kind === "majority" || row.kind === "skipped") return "–";
  return (row.n === row.trials ? `${row.n}` : `${row.n} of ${row.trials}`) + (row.suspect ? "†" : "");
}

function sorted(rows, where) {
  const falling = state.sort.startsWith("-");
  const column = columns(where).find(({ key }) => key === state.sort.slice(falling ? 1 : 0));
  if (!column) return rows;
  const order = (a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    if (x === null || y === null) return (x === null) - (y === null); // what is missing is last either way
    return (column.text ? x.localeCompare(y, "en", { numeric: true }) : x - y) * (falling ? -1 : 1);
  };
  return [...rows].sort(order);
}

function renderBoard() {
  const where = place(),
    shown = columns(where),
    on = new Set(chosen());
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const top = Object.fromEntries(
    shown.filter((c) => c.score).map((c) => [c.key, Math.max(...where.rows.map((row) => c.value(row) ?? 0))]),
  );
  const head = shown.map((column) => {
    const now =
      state.sort.replace(/^-/, "") === column.key ? (state.sort.startsWith("-") ? "descending" : "ascending") : null;
    const next = now
      ? now === "descending"
        ? column.key
        : `-${column.key}`
      : column.high
        ? `-${column.key}`
        : column.key;
    const arrow = h("span", { class: "arrow", "aria-hidden": "true" }, now ? (now === "descending" ? "▼" : "▲") : "");
    return h(
      "th",
      { scope: "col", "aria-sort": now },
      h(
        "button",
        { type: "button", id: `sort-${column.key}`, onclick: () => change({ sort: next }) },
        arrow,
        column.key,
        column.small ? h("small", null, column.small) : null,
      ),
    );
  });
  let found = 0;
  const bodies = ["method", "skipped", "control", "majority"].map((kind) => {
    if ((kind === "control" && state.controls !== "1") || (kind === "majority" && state.majority !== "1")) return null;
    const rows = sorted(
      where.rows.filter((row) => row.kind === kind),
      where,
    ).filter((row) => words.every((word) => row.name.toLowerCase().includes(word)));
    found += rows.length;
    return rows.length
      ? h(
          "tbody",
          { "data-kind": kind },
          rows.map((row) => line(row, shown, top, on.has(row))),
        )
      : null;
  });
  const nothing = h(
    "tbody",
    null,
    h("tr", null, h("td", { class: "empty", colspan: shown.length }, "No method matches.")),
  );
  at("leaderboard").setAttribute("aria-label", where.name);
  at("leaderboard").replaceChildren(
    h("thead", null, h("tr", null, head)),
    ...(found ? bodies.filter(Boolean) : [nothing]),
  );
  at("board-count").textContent = `${found} of ${where.rows.length} rows`;
}

function line(row, shown, top, on) {
  const name =
    row.kind === "majority"
      ? row.name
      : h(
          "label",
          null,
          h("input", {
            type: "checkbox",
            id: `choose-${row.name}`,
            checked: on,
            onchange: (event) => choose(row.name, event.target.checked),
          }),
          legend(row),
          h("span", null, row.name),
        );
  const cells = shown.slice(1).map((column) => {
    if (!column.score) return h("td", null, column.show(row));
    const [mean, std] = row.scores[column.key] ?? [null, null];
    if (mean === null) return h("td", null, "–");
    const number = row.best.includes(column.key)
      ? h("b", { title: "not significantly worse than the best of the column" }, fixed(mean))
      : fixed(mean);
    const share = top[column.key] > 0 ? Math.max(0, (100 * mean) / top[column.key]) : 0;
    return h(
      "td",
      null,
      number,
      std === null ? null : h("span", { class: "std" }, ` ± ${fixed(std)}`),
      h("span", { class: "meter", "--share": share.toFixed(1), "aria-hidden": "true" }),
    );
  });
  return h(
    "tr",
    { class: `${row.kind === "method" ? "" : "quiet"} ${on ? "on" : ""}`.trim() || null },
    h("th", { scope: "row" }, name),
    cells,
  );
}

// plots ---------------------------------------------------------------------------------------------------------------

function linear(low, high, from, to, whole = false) {
  const span = high - low || 1,
    rough = Math.max(span / Math.max(2, Math.abs(to - from) / 70), whole ? 1 : 0);
  const power = 10 ** Math.floor(Math.log10(rough));
  const factors = whole ? [1, 2, 5, 10] : [1, 2, 2.5, 5, 10];
  const step = factors.find((factor) => factor * power >= rough) * power;
  const ticks = [];
  for (let tick = Math.ceil(low / step); tick * step <= high + 1e-9 * span; tick++)
    ticks.push(+(tick * step).toPrecision(10));
  return { place: (value) => from + ((value - low) / span) * (to - from), ticks };
}

function logarithmic(low, high, from, to) {
  const inner = linear(Math.log10(low), Math.log10(high), from, to),
    ticks = [];
  const wide = Math.log10(high / low) > 2.2 || Math.abs(to - from) < 400;
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const factor of wide ? [1] : [1, 2, 5]) {
      const tick = factor * 10 ** power;
      if (tick >= low && tick <= high) ticks.push(tick);
    }
  const place = (value) => inner.place(Math.log10(value));
  return { place, ticks: ticks.length > 2 ? ticks : linear(low, high, from, to).ticks };
}

/** An empty plot with its axes: across and up are the ranges, left and so on the frame in pixels. */
function canvas(target, { across, up, log, whole, labels, title, height = 430, right = 18 }) {
  const width = Math.max(300, target.clientWidth - 16 || 900);
  const box = { left: 66, right: width - right, top: 14, bottom: height - 46 };
  const x = log ? logarithmic(...across, box.left, box.right) : linear(...across, box.left, box.right, whole),
    y = linear(...up, box.bottom, box.top);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": title });
  for (const tick of y.ticks)
    picture.append(
      svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y.place(tick), y2: y.place(tick) }),
      svg("text", { x: box.left - 8, y: y.place(tick) + 4, "text-anchor": "end" }, `${tick}`),
    );
  for (const tick of x.ticks)
    picture.append(
      svg("line", { class: "grid", x1: x.place(tick), x2: x.place(tick), y1: box.top, y2: box.bottom }),
      svg("text", { x: x.place(tick), y: box.bottom + 18, "text-anchor": "middle" }, short(tick)),
    );
  picture.append(
    svg("path", { class: "axis", fill: "none", d: `M${box.left},${box.top}V${box.bottom}H${box.right}` }),
    svg("text", { x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle" }, labels[0]),
    svg(
      "text",
      { transform: `translate(14,${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" },
      labels[1],
    ),
  );
  target.replaceChildren(picture);
  return { picture, x: x.place, y: y.place, box };
}

function range(values, margin, floor = -Infinity) {
  const low = Math.min(...values),
    high = Math.max(...values),
    room = (high - low || Math.abs(high) || 1) * margin;
  return [Math.max(floor, low - room), high + room];
}

/** Show text at an element while it is pointed at or has the focus. */
function tip(on, text, label = text()) {
  const show = (event) => {
    const bubble = at("tip");
    bubble.textContent = text();
    bubble.hidden = false;
    const target =
      event.type === "pointermove"
        ? { left: event.clientX, right: event.clientX, top: event.clientY, bottom: event.clientY }
        : on.getBoundingClientRect();
    const { width, height } = bubble.getBoundingClientRect();
    bubble.style.left = `${Math.max(4, Math.min(innerWidth - width - 4, (target.left + target.right - width) / 2))}px`;
    bubble.style.top = `${target.top - height - 10 > 0 ? target.top - height - 10 : target.bottom + 14}px`;
  };
  for (const event of ["pointermove", "focus", "keyup"]) on.addEventListener(event, show);
  for (const event of ["pointerleave", "blur"]) on.addEventListener(event, hideTip);
  on.setAttribute("aria-label", label.replaceAll("\n", ", "));
  return on;
}
const hideTip = () => {
  at("tip").hidden = true;
};

/** Put each label where it covers nothing, wanted ones first; what finds no room is left to the tip. */
function label(picture, points, box, taken) {
  const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  for (const point of points)
    taken.push({
      left: point.x - 6,
      right: point.x + 6,
      top: point.y - Math.max(6, point.bar),
      bottom: point.y + Math.max(6, point.bar),
    });
  for (const point of [...points].sort((a, b) => b.wanted - a.wanted || a.y - b.y)) {
    const text = svg("text", { class: point.wanted ? "name on" : "name", "aria-hidden": "true" }, point.text);
    picture.append(text);
    const width = text.getComputedTextLength() || 6.4 * point.text.length;
    const spots = [9, 15, 24, 36, 50, 66].flatMap((far) =>
      [0, 180, 90, 270, 35, 325, 145, 215, 65, 295, 115, 245].map((angle) => {
        const [dx, dy] = [far * Math.cos((angle * Math.PI) / 180), -far * Math.sin((angle * Math.PI) / 180)];
        const left = point.x + dx - (dx > 1 ? 0 : dx < -1 ? width : width / 2),
          top = point.y + dy - (dy > 1 ? 2 : dy < -1 ? 11 : 6.5);
        return { left, right: left + width, top, bottom: top + 13, far, dx, dy };
      }),
    );
    const spot = spots.find(
      (one) =>
        one.left > box.left &&
        one.right < box.right + 16 &&
        one.top > box.top - 8 &&
        one.bottom < box.bottom &&
        !taken.some((other) => overlap(one, other)),
    );
    if (!spot) {
      text.remove();
      continue;
    }
    taken.push(spot);
    text.setAttribute("x", spot.left);
    text.setAttribute("y", spot.top + 10.5);
    if (spot.far > 15)
      picture.prepend(
        svg("line", { class: "leader", x1: point.x, y1: point.y, x2: point.x + spot.dx, y2: point.y + spot.dy }),
      );
  }
}

function renderCosts() {
  const where = place(),
    on = new Set(chosen());
  const cost = fill(at("x"), Object.entries(data.costs), state.x);
  const task = fill(at("y"), [...Object.keys(where.metrics), "average"], state.y);
  tellCosts(where);
  const log = cost === "trainable",
    signed = cost.startsWith("forgetting");
  const rows = methodsOf(where).filter(
    (row) => row.costs[cost] !== null && (row.costs[cost] > 0 || signed) && score(row, task) !== null,
  );
  at("costs-note").textContent = "";
  if (!rows.length) return void at("costs-plot").replaceChildren(h("p", { class: "empty" }, "No method has both."));
  const reach = (row) => ends(...row.scores[task], where.bounds[task]);
  const rules = ["control", "majority"].flatMap((kind) => {
    if ((kind === "control" ? state.controls : state.majority) !== "1") return [];
    const best = where.rows
      .filter((row) => row.kind === kind && score(row, task) !== null)
      .sort((a, b) => score(b, task) - score(a, task))[0];
    return best
      ? [{ value: score(best, task), text: kind === "control" ? `best control (${best.name})` : best.name }]
      : [];
  });
  const heights = [
    ...rows.flatMap(reach),
    ...rules.map(({ value }) => value),
  ];
  const costs = rows.map((row) => row.costs[cost]);
  const room = Math.max(1.6, (Math.max(...costs) / Math.min(...costs)) ** 0.06);
  const across = log
    ? [Math.min(...costs) / room, Math.max(...costs) * room]
    : range(costs, 0.08, signed ? -Infinity : 0);
  const { picture, x, y, box } = canvas(at("costs-plot"), {
    across,
    up: range(heights, 0.07),
    log,
    labels: [data.costs[cost], task === "average" ? "average score" : `${task}, ${where.metrics[task]}`],
    title: `${task} against ${data.costs[cost]}; methods are in the order of the table`,
  });
  const better = (a, b) =>
    a.costs[cost] <= b.costs[cost] &&
    score(a, task) >= score(b, task) &&
    (a.costs[cost] < b.costs[cost] || score(a, task) > score(b, task));
  const front = rows
    .filter((row) => !rows.some((other) => better(other, row)))
    .sort((a, b) => a.costs[cost] - b.costs[cost]);
  const steps = front
    .map((row, i) => `${i ? `H${x(row.costs[cost])}V` : `M${x(row.costs[cost])},`}${y(score(row, task))}`)
    .join("");
  picture.append(svg("path", { class: "front", d: `${steps}H${box.right}` }));
  const taken = [];
  for (const { value, text } of rules) {
    picture.append(
      svg("line", { class: "rule", x1: box.left, x2: box.right, y1: y(value), y2: y(value) }),
      svg("text", { x: box.left + 6, y: y(value) - 5, "font-size": 11 }, text),
    );
    taken.push({ left: box.left, right: box.left + 6.2 * text.length, top: y(value) - 17, bottom: y(value) + 3 });
  }
  const twins = beneath(
    rows.map((row) => [x(row.costs[cost]), y(score(row, task))]),
    3,
  );
  const points = rows.map((row, i) => {
    const [px, py] = [x(row.costs[cost]), y(score(row, task))],
      [bottom, top] = reach(row).map(y);
    const text = () =>
      [
        row.name + (row.suspect ? " †" : ""),
        `${task} ${spread(...row.scores[task])}`,
        `${data.costs[cost]} ${tell(cost, row.costs[cost])}`,
      ].join("\n");
    const press = () => choose(row.name, !on.has(row));
    const point = svg(
      "g",
      {
        class: `point${on.has(row) ? " on" : ""}`,
        id: `point-${row.name}`,
        tabindex: 0,
        role: "button",
        "aria-pressed": `${on.has(row)}`,
        "data-front": front.includes(row) ? "1" : "0",
        onclick: press,
        onkeydown: (event) => {
          if (event.key === "Enter" || event.key === " ") {
            event.preventDefault();
            press();
          }
        },
      },
      svg("circle", { class: "ring", cx: px, cy: py, r: 11 }),
      svg("circle", { cx: px, cy: py, r: 12, fill: "transparent" }),
    );
    if (row.scores[task][1]) point.append(errorBar(row, px, top, bottom, twins[i]));
    point.append(marker(row, { x: px, y: py, r: 5.2 + 4 * twins[i], hollow: !front.includes(row) }));
    picture.append(tip(point, text));
    return { x: px, y: py, bar: Math.max(bottom - py, py - top), text: row.name + (row.suspect ? " †" : ""), wanted: on.has(row) };
  });
  label(picture, points, box, taken);
  at("costs-note").textContent = [
    "Filled, joined by the line: on the Pareto front, where no other method costs as little and scores as much; open: " +
      "the others.",
    `Means over ${seeds(rows)}.`,
    rows.some((row) => row.scores[task][1] !== null)
      ? "Bars: one sample standard deviation to either side, cut off where scores end."
      : "",
    twins.some(Boolean) ? "Of two in one place the one beneath is larger." : "",
    rows.some((row) => row.suspect) ? "†: with suspect trials, see the notes." : "",
    where.devices ? `Memory and time are those on ${where.devices}.` : "",
    "Click a point to choose it.",
  ].join(" ");
}

/** Of a cost as many digits as tell methods apart. */
function tell(cost, value) {
  if (cost === "trainable") return whole(value);
  return fixed(value, cost.startsWith("forgetting") ? 3 : 2);
}

/** All that is known of what methods cost, in the order of the table. */
function tellCosts(where) {
  const rows = methodsOf(where);
  const told = Object.keys(data.costs).filter((cost) => rows.some((row) => typeof row.costs[cost] === "number"));
  at("costs-table").replaceChildren(
    h("thead", null, h("tr", null, ["method", ...told.map((cost) => data.costs[cost])].map((name) => h("th", null, name)))),
    h(
      "tbody",
      null,
      rows.map((row) =>
        h(
          "tr",
          null,
          h("th", { scope: "row" }, row.name),
          told.map((cost) => h("td", null, tell(cost, row.costs[cost]))),
        ),
      ),
    ),
  );
}

function errorBar(row, x, top, bottom, twins) {
  const half = 3 + 2 * twins;
  return svg("path", {
    class: "whisker",
    d: `M${x},${top}V${bottom}M${x - half},${top}h${2 * half}M${x - half},${bottom}h${2 * half}`,
    stroke: style(row).color,
    "stroke-width": 1.2 + 2 * twins,
  });
}

/** "n = 3 seeds", or from how few to how many. */
function seeds(rows) {
  const [low, high] = [Math.min(...rows.map(({ n }) => n)), Math.max(...rows.map(({ n }) => n))];
  return `n = ${low === high ? low : `${low} to ${high}`} seed${high === 1 ? "" : "s"}`;
}

function renderCurves() {
  const where = place(),
    tasks = inOrder(where, where.curves);
  at("curves").hidden = !data.places.some(({ curves }) => Object.keys(curves).length);
  if (at("curves").hidden) return;
  const task = fill(at("curve"), tasks, state.curve);
  const measures = Object.keys(where.curves[task] ?? {}).sort(
    (a, b) => a.startsWith("training") - b.startsWith("training"),
  );
  const measure = fill(at("measure"), measures, state.measure);
  const all = where.curves[task]?.[measure] ?? {};
  const lines = chosen()
    .map((row) => ({ row, points: (all[where.rows.indexOf(row)] ?? []).filter(([, height]) => height !== null) }))
    .filter(({ points }) => points.length);
  const table = at("curves-table");
  if (!lines.length) {
    at("curves-plot").replaceChildren(h("p", { class: "empty" }, "None of the chosen methods has such a curve."));
    return void table.replaceChildren();
  }
  const bounds = measure.endsWith(" loss") ? [0, null] : (where.bounds[task] ?? [null, null]);
  const reach = ([, mean, std]) => ends(mean, std, bounds);
  const values = lines.flatMap(({ points }) => points.flatMap(reach));
  const epochs = lines.flatMap(({ points }) => points.map(([epoch]) => epoch));
  const plot = at("curves-plot"),
    wide = plot.clientWidth > 700;
  const widest = Math.max(...lines.map(({ row }) => row.name.length));
  const { picture, x, y, box } = canvas(plot, {
    across: [Math.min(0, ...epochs), Math.max(1, ...epochs)],
    whole: true,
    up: range(values, 0.05),
    labels: ["epoch", `${task}: ${measure}`],
    height: 380,
    right: wide ? 24 + 6.6 * widest : 18,
    title: `${task}: ${measure} by epoch`,
  });
  const twins = beneath(
    lines.map(({ points }) => points.flatMap(([epoch, mean]) => [x(epoch), y(mean)])),
    3,
  );
  for (const [i, { row, points }] of lines.entries()) {
    const { color, dash } = style(row);
    const along = points.map(([epoch, mean]) => `${x(epoch)},${y(mean)}`).join("L");
    const edge = (end) => points.map((point) => `${x(point[0])},${y(reach(point)[end])}`);
    const measured = points.some(([, , std]) => std);
    let index = points.length - 1;
    const told = ([epoch, mean, std]) =>
      `${row.name}\nepoch ${+epoch.toFixed(2)}: ${measure.endsWith("loss") ? fixed(mean, 3) : spread(mean, std)}`;
    const group = svg(
      "g",
      {
        class: "line",
        id: `line-${row.name}`,
        tabindex: 0,
        role: "img",
        onkeydown: (event) => {
          const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
          if (step) {
            event.preventDefault();
            index = Math.max(0, Math.min(points.length - 1, index + step));
          }
        },
        onpointermove: (event) => {
          const { left, width } = picture.getBoundingClientRect(),
            px = ((event.clientX - left) / width) * picture.viewBox.baseVal.width;
          index = points.reduce(
            (best, [epoch], i) => (Math.abs(x(epoch) - px) < Math.abs(x(points[best][0]) - px) ? i : best),
            0,
          );
        },
      },
      measured && points.length === 1 && errorBar(row, x(points[0][0]), ...reach(points[0]).map(y).reverse(), twins[i]),
      measured &&
        points.length > 1 &&
        svg("path", { d: `M${edge(1).join("L")}L${edge(0).reverse().join("L")}z`, fill: color, opacity: 0.14 }),
      svg("path", { d: `M${along}`, fill: "none", stroke: "transparent", "stroke-width": 14 }),
      svg("path", {
        class: "line-path",
        d: `M${along}`,
        stroke: color,
        "stroke-dasharray": dash || null,
        style: `stroke-width: ${2 + 4 * twins[i]}`,
      }),
      points.map(([epoch, mean]) => marker(row, { x: x(epoch), y: y(mean), r: 4 + 3.5 * twins[i] })),
    );
    picture.append(
      tip(
        group,
        () => told(points[index]),
        `${told(points[0])}; ${told(points.at(-1))}; arrow keys go along the curve`,
      ),
    );
  }
  if (wide) {
    // names at the ends, pushed apart
    const ends = lines.map(({ row, points }) => ({ row, y: y(points.at(-1)[1]) })).sort((a, b) => a.y - b.y);
    ends.forEach((end, i) => {
      if (i) end.y = Math.max(end.y, ends[i - 1].y + 15);
    });
    for (let i = ends.length - 1, floor = box.bottom; i >= 0; floor = ends[i].y - 15, i--)
      ends[i].y = Math.min(ends[i].y, floor);
    for (const end of ends)
      picture.append(svg("text", { class: "name", x: box.right + 12, y: end.y + 4 }, end.row.name));
  }
  at("curves-note").textContent = [
    `Means over ${seeds(lines.map(({ row }) => row))} of the chosen methods.`,
    "Bands, and bars where a curve has one point: one sample standard deviation to either side, cut off where scores end.",
    twins.some(Boolean) ? "Of two in one place the one beneath is wider." : "",
  ].join(" ");
  const moments = [...new Set(epochs)].sort((a, b) => a - b);
  const found = lines.map(({ points }) => new Map(points.map(([epoch, mean, std]) => [epoch, spread(mean, std)])));
  table.replaceChildren(
    h(
      "thead",
      null,
      h(
        "tr",
        null,
        h("th", { scope: "col" }, "epoch"),
        lines.map(({ row }) => h("th", { scope: "col" }, row.name)),
      ),
    ),
    h(
      "tbody",
      null,
      moments.map((epoch) =>
        h(
          "tr",
          null,
          h("th", { scope: "row" }, `${+epoch.toFixed(2)}`),
          found.map((of) => h("td", null, of.get(epoch) ?? "–")),
        ),
      ),
    ),
  );
}

function renderParts() {
  const where = place();
  at("parts").hidden = !data.places.some(({ parts }) => Object.keys(parts).length);
  if (at("parts").hidden) return;
  const task = fill(at("part"), inOrder(where, where.parts), state.part);
  const group = fill(at("group"), Object.keys(where.parts[task] ?? {}), state.group);
  const parts = Object.entries(where.parts[task]?.[group] ?? {}),
    rows = chosen();
  const top = Math.max(
    100 * (where.metrics[task] === "accuracy"),
    ...parts.flatMap(([, { rows: of }]) => Object.values(of).map(([mean]) => mean ?? 0)),
    1e-9,
  );
  const body = parts.map(([part, { n, rows: of }]) =>
    h(
      "tbody",
      null,
      h(
        "tr",
        null,
        h("th", { scope: "rowgroup", colspan: 2 }, part, h("span", { class: "std" }, `  ${many(n, "example")}`)),
      ),
      rows.map((row) => {
        const [mean, std] = of[where.rows.indexOf(row)] ?? [null, null];
        const share = ((100 * Math.max(0, mean ?? 0)) / top).toFixed(2);
        return h(
          "tr",
          null,
          h("th", { scope: "row" }, legend(row), ` ${row.name}`),
          h(
            "td",
            null,
            h(
              "span",
              { class: "measured" },
              mean === null ? null : h("span", { class: "fill", background: style(row).color, "--share": share }),
              spread(mean, std),
            ),
          ),
        );
      }),
    ),
  );
  const head = [group || "part", where.metrics[task] ?? "score"].map((text) =>
    h("th", { scope: "col", class: "text" }, text),
  );
  at("parts-table").replaceChildren(h("thead", null, h("tr", null, head)), ...body);
}

// examples ------------------------------------------------------------------------------------------------------------

const [ID, TEXT, ANSWERS, PICTURES, DRAWN, SAID, GIVEN] = [0, 1, 2, 3, 4, 5, 6];

/** What a row's trials of the chosen seed said to an example: [{text, score, seeds}], the commonest first. */
function answers(item, row, seed) {
  const where = place(),
    index = [data.places.indexOf(where), where.rows.indexOf(row)],
    found = new Map();
  data.examples[where.suite].trials.forEach(([inPlace, inRow, of], trial) => {
    if (inPlace !== index[0] || inRow !== index[1] || (seed !== "all" && `${of}` !== seed) || item[GIVEN][trial] < 0)
      return;
    const [text, points] = item[SAID][item[GIVEN][trial]];
    if (!found.has(item[GIVEN][trial])) found.set(item[GIVEN][trial], { text, score: points, seeds: [] });
    found.get(item[GIVEN][trial]).seeds.push(of);
  });
  return [...found.values()].sort((a, b) => b.seeds.length - a.seeds.length);
}

function mean(given) {
  const scores = given.flatMap(({ score: points, seeds }) => (points === null ? [] : seeds.map(() => points)));
  return scores.length ? scores.reduce((sum, points) => sum + points, 0) / scores.length : null;
}

function filters(graded) {
  return [
    ["all", "all"],
    ["disagree", graded ? "some right, some wrong" : "answers differ"],
    ...(graded
      ? [
          ["wrong", "all wrong"],
          ["right", "all right"],
        ]
      : []),
    ["pair", graded ? "one right, one wrong …" : "one better than another …"],
    ["drawn", "drawn at random"],
  ];
}

function keep(item, rows, { graded, filter, seed, a, b, words }) {
  const given = new Map([...new Set([...rows, a, b].filter(Boolean))].map((row) => [row, answers(item, row, seed)]));
  const scores = rows.map((row) => mean(given.get(row))).filter((points) => points !== null);
  const text = [item[ID], item[TEXT], ...item[ANSWERS], ...rows.flatMap((row) => given.get(row).map((one) => one.text))]
    .join("\n")
    .toLowerCase();
  if (!words.every((word) => text.includes(word))) return false;
  if (filter === "drawn") return item[DRAWN] === 1;
  if (filter === "wrong") return scores.length > 0 && scores.every((points) => points <= 50);
  if (filter === "right") return scores.length > 0 && scores.every((points) => points > 50);
  if (filter === "disagree") {
    if (!graded) return new Set(rows.flatMap((row) => given.get(row).map((one) => one.text))).size > 1;
    return scores.some((points) => points > 50) && scores.some((points) => points <= 50);
  }
  if (filter === "pair") {
    const [one, other] = [a, b].map((row) => (row ? mean(given.get(row)) : null));
    if (one === null || other === null) return false;
    return graded ? one > 50 && other <= 50 : one > other;
  }
  return true;
}

function renderExamples() {
  const where = place(),
    of = data.examples[where.suite],
    tasks = inOrder(where, of?.tasks ?? {});
  at("examples").hidden = !Object.keys(data.examples).length;
  if (at("examples").hidden) return;
  const task = fill(at("task"), tasks, state.task),
    found = of?.tasks[task];
  const rows = chosen(),
    names = rows.map(({ name }) => name),
    here = data.places.indexOf(where);
  const seeds = [
    ...new Set((of?.trials ?? []).filter(([index]) => index === here).map(([, , seed]) => `${seed}`)),
  ].sort((a, b) => a - b);
  const seed = fill(at("seed"), [["all", "all"], ...seeds], state.seed);
  const filter = fill(at("filter"), filters(found?.graded), state.filter);
  at("pair").hidden = filter !== "pair";
  const a = rows.find(({ name }) => name === fill(at("a"), names, state.a));
  const b = rows.find(({ name }) => name === fill(at("b"), names, state.b || names.at(-1)));
  at("pair-and").textContent = found?.graded ? "right and" : "better than";
  at("pair-end").textContent = found?.graded ? "wrong" : "";
  const words = state.find.toLowerCase().split(/\s+/).filter(Boolean),
    graded = found?.graded;
  const items = (found?.items ?? []).filter((item) => keep(item, rows, { graded, filter, seed, a, b, words }));
  const pages = Math.max(1, Math.ceil(items.length / PAGE));
  const wanted = items.findIndex((item) => item[ID] === state.id);
  const page = wanted >= 0 ? Math.floor(wanted / PAGE) + 1 : Math.min(pages, Math.max(1, Math.floor(+state.page) || 1));
  at("cards").classList.toggle("long", !graded);
  at("cards").replaceChildren(
    ...items.slice((page - 1) * PAGE, page * PAGE).map((item) => card(item, rows, seed, graded)),
  );
  const range = items.length ? `${(page - 1) * PAGE + 1}–${Math.min(items.length, page * PAGE)} of ` : "";
  const total = found?.items.length ?? 0,
    rest = items.length === total ? "" : ` (of ${total} on this page)`;
  const missing = state.id && wanted < 0 ? ` No example “${state.id}” among them.` : "";
  at("examples-count").textContent = `${range}${many(items.length, "example")}${rest}.${missing}`;
  at("examples-note").textContent = found ? about(found) : "No predictions have been kept.";
  at("pages").hidden = pages < 2;
  at("page-count").textContent = `page ${page} of ${pages}`;
  at("previous").disabled = page <= 1;
  at("next").disabled = page >= pages;
  at("previous").onclick = () => turn(page - 1);
  at("next").onclick = () => turn(page + 1);
}

function turn(page) {
  change({ page: `${page}`, id: "" });
  at("examples-note").scrollIntoView();
}

function about({ items, of, graded, described }) {
  const drawn = items.filter((item) => item[DRAWN]).length;
  const which = drawn
    ? `${items.length} of the test’s ${whole(of)} examples are here: ${drawn} drawn at random from all of them (marked ` +
      `“random”), and of the others the ${items.length - drawn} on which the methods’ mean scores vary most, so that ` +
      "shares of right answers on this page are not those of the test."
    : `All ${whole(of)} examples of the test, those first on which the methods’ mean scores vary most.`;
  const right = graded
    ? "✓ right, ✗ wrong, ◐ in part (as few annotators said); of several seeds, right is a mean score above 50."
    : "Scores are this example’s own.";
  const bare = "Texts, right answers and pictures are not in this file: its maker had no data at hand (--data).";
  return [which, right, described ? "" : bare].join(" ");
}

const VERDICTS = { right: "✓", wrong: "✗", partly: "◐" };
function verdict(points, graded) {
  if (!graded || points === null) return null;
  return points > 99.9 ? "right" : points > 0 ? "partly" : "wrong";
}

function card(item, rows, seed, graded) {
  const link = address({ id: item[ID], page: DEFAULTS.page });
  const top = Math.max(...rows.map((row) => mean(answers(item, row, seed)) ?? -1));
  const lines = rows.map((row) => {
    const given = answers(item, row, seed),
      points = mean(given),
      how = verdict(points, graded),
      best = !graded && points === top && rows.length > 1;
    const said = given.map(({ text, score: own, seeds }) => {
      const sign = given.length > 1 ? VERDICTS[verdict(own, graded)] : null;
      return h(
        "div",
        null,
        text === "" ? h("i", null, "nothing") : text,
        seeds.length > 1 && given.length > 1 ? h("span", { class: "std" }, ` ×${seeds.length}`) : null,
        sign ? ` ${sign}` : null,
        !graded && given.length > 1 ? h("span", { class: "std" }, ` ${fixed(own, 1)}`) : null,
      );
    });
    return h(
      "tr",
      { class: how ?? (best ? "right" : null) },
      h("th", { scope: "row" }, legend(row), row.name),
      h("td", { class: "text" }, said.length ? said : "–"),
      h(
        "td",
        { class: "score" },
        h("span", { class: "verdict" }, how ? VERDICTS[how] : best ? "best" : ""),
        how === "right" || how === "wrong" ? h("span", { class: "hidden" }, how) : ` ${fixed(points, 1)}`,
      ),
    );
  });
  const pictures = item[PICTURES].map((index, i) => {
    const side = item[PICTURES].length > 1 ? `, ${["left", "right"][i] ?? i + 1}` : "";
    return h("img", { src: data.pictures[index], alt: `picture of example ${item[ID]}${side}`, onload: small });
  });
  return h(
    "article",
    { class: state.id === item[ID] ? "card on" : "card", "data-id": item[ID] },
    pictures.length ? h("div", { class: "pictures" }, pictures) : null,
    h(
      "header",
      null,
      h("a", { href: link, title: "link to this example" }, item[ID]),
      item[DRAWN] ? h("span", { class: "badge" }, "random") : null,
    ),
    item[TEXT] ? h("p", { class: "text" }, question(item[TEXT])) : null,
    item[ANSWERS].length
      ? h(
          "ul",
          { class: "answers" },
          h("li", { class: "label" }, graded ? "right:" : "references:"),
          item[ANSWERS].map((answer) => h("li", null, answer)),
        )
      : null,
    h("table", { "aria-label": `What methods said to example ${item[ID]}` }, h("tbody", null, lines)),
  );
}

/** A text of one line as it is; of several (a clip's), what is asked stands out. */
function question(text) {
  const lines = text.split("\n");
  return lines.length < 2
    ? text
    : lines.map((line) => h("span", { class: line.startsWith("Question:") ? null : "aside" }, line));
}

/** Pictures of few pixels stay sharp. */
function small(event) {
  event.target.classList.toggle("small", event.target.naturalHeight < 200);
}

// the whole -----------------------------------------------------------------------------------------------------------

function renderChosen() {
  const rows = chosen(),
    others = place().rows.filter((row) => row.kind !== "majority" && !rows.includes(row));
  at("chosen").replaceChildren(
    ...rows.map((row) =>
      h(
        "li",
        { class: "chip" },
        h(
          "button",
          {
            type: "button",
            id: `drop-${row.name}`,
            "aria-label": `remove ${row.name}`,
            onclick: () => choose(row.name, false),
          },
          legend(row),
          row.name,
        ),
      ),
    ),
  );
  fill(at("add"), [["", "+ add a method"], ...others.map(({ name }) => name)], "");
}

function render() {
  const focused = document.activeElement?.id;
  fill(
    at("place"),
    data.places.map(({ name }) => name),
    state.place,
  );
  at("q").value === state.q || (at("q").value = state.q);
  at("find").value === state.find || (at("find").value = state.find);
  at("id").value === state.id || (at("id").value = state.id);
  at("controls").checked = state.controls === "1";
  at("majority").checked = state.majority === "1";
  hideTip();
  for (const draw of [renderChosen, renderBoard, renderCosts, renderCurves, renderParts, renderExamples]) draw();
  for (const link of document.querySelectorAll("#nav a")) link.hidden = at(link.hash.slice(1)).hidden;
  if (focused && document.activeElement?.id !== focused) at(focused)?.focus({ preventScroll: true });
}

function start() {
  const { places } = data,
    rows = places.flatMap((one) => methodsOf(one).map(({ name }) => name));
  const [methods, trials] = [new Set(rows).size, places.reduce((sum, one) => sum + one.trials, 0)];
  at("summary").textContent =
    `${many(methods, "method")}, ${many(trials, "trial")}: ${places.map(({ name }) => name).join("; ")}`;
  at("places").hidden = places.length < 2;
  at("notes").replaceChildren(...data.notes.map((note) => h("li", null, note)));
  for (const kind of ["control", "majority"])
    at(kind === "control" ? "controls" : kind).closest("label").hidden = !places.some((one) =>
      one.rows.some((row) => row.kind === kind),
    );
  for (const id of ["x", "y", "curve", "measure", "part", "group"])
    at(id).addEventListener("change", (event) => change({ [id]: event.target.value }));
  for (const id of ["task", "seed", "filter", "a", "b"])
    at(id).addEventListener("change", (event) => change({ [id]: event.target.value, page: "1", id: "" }));
  for (const id of ["controls", "majority"])
    at(id).addEventListener("change", (event) => change({ [id]: event.target.checked ? "1" : "0" }));
  at("q").addEventListener("input", (event) => change({ q: event.target.value }));
  at("find").addEventListener("input", (event) => change({ find: event.target.value, page: "1", id: "" }));
  at("place").addEventListener("change", (event) => change({ place: event.target.value, page: "1", id: "" }));
  at("add").addEventListener("change", (event) => event.target.value && choose(event.target.value, true));
  at("reset").addEventListener("click", () => change({ methods: null, page: "1", id: "" }));
  at("id").addEventListener("change", (event) => jump(event.target.value.trim()));
  at("nav").addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link) return;
    event.preventDefault(); // the address is for the state
    at(link.hash.slice(1)).scrollIntoView();
    at(`${link.hash.slice(1)}-title`).focus({ preventScroll: true });
  });
  addEventListener("hashchange", () => {
    read();
    render();
    show();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") hideTip();
  });
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) {
      width = innerWidth;
      render();
    }
  });
  read();
  render();
  show();
}

/** To an example: among what is filtered if it is there, else among all. */
function jump(id) {
  change({ id, page: "1" });
  if (id && !document.querySelector(".card.on")) change({ filter: "all", find: "" });
  show();
}

const show = () => {
  if (state.id) document.querySelector(".card.on")?.scrollIntoView({ block: "center" });
};

if (data.places.length) start();
else document.querySelector("main").replaceChildren(h("p", { class: "empty" }, "No results."));
