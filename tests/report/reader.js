// What a reader does with the page, in the middle of probe.js.
seen.first = { names: names("method"), controls: names("control"), chips: texts("#chosen li") };
seen.first.sorted = texts("th[aria-sort]");
at("sort-vqa").focus();
at("sort-vqa").click();
seen.falling = {
  names: names("method"),
  sort: at("sort-vqa").closest("th").ariaSort,
  focus: document.activeElement.id,
};
at("sort-vqa").click();
seen.rising = { names: names("method"), sort: at("sort-vqa").closest("th").ariaSort };
at("sort-parameters").click();
seen.parameters = names("method");
set("q", "L", "input");
seen.filtered = { names: names("method"), count: at("board-count").textContent };
set("q", "zzz", "input");
seen.none = texts("#leaderboard tbody td");
set("q", "", "input");
at("controls").click();
at("majority").click();
seen.bare = [names("control"), names("majority"), texts(".rule + text")];
at("controls").click();

seen.bold = texts("#leaderboard b");
for (const chip of all("#chosen button")) at(chip.id).click();
seen.unchosen = texts("#chosen li");
at("choose-lora").click();
at("point-bitfit").dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
set("add", "full");
seen.chosen = {
  chips: texts("#chosen li"),
  ticked: all("#leaderboard input:checked").length,
  lines: all(".line").length,
};
seen.pressed = all('.point[aria-pressed="true"]').length;
set("x", "train_seconds");
set("y", "vqa");
seen.front = all('.point[data-front="1"]').map((point) => point.id.replace("point-", ""));
at("point-lora").focus();
seen.tip = at("tip").hidden ? null : at("tip").textContent;
set("curve", "vqa");
set("measure", "training loss");
seen.numbers = all("#curves-table tr").map((row) => texts("th, td", row));
seen.parts = all("#parts-table tbody").map((body) => texts("th, td", body));

set("task", "gqa");
set("seed", "1");
seen.all = paged();
set("filter", "disagree");
seen.disagree = paged();
set("filter", "wrong");
seen.wrongs = paged();
set("filter", "pair");
set("a", "full");
set("b", "bitfit");
seen.pair = paged();
seen.address = location.hash;
set("filter", "drawn");
seen.drawn = paged();
seen.badges = all(".badge").length;
set("filter", "all");
set("find", "IT is 3", "input");
seen.found = paged();
set("find", "", "input");
set("id", "7");
const card = document.querySelector(".card.on");
seen.card = { id: card.dataset.id, said: card.querySelector(".text").textContent, texts: texts("tr", card) };
seen.card.classes = all("tr", card).map((row) => row.className);
await Promise.all(all(".card img").map((image) => image.decode()));
seen.images = all(".card img").map((image) => image.naturalWidth);
set("id", "nobody");
seen.nobody = at("examples-count").textContent;

const before = turned();
location.hash = seen.address;
await before;
seen.again = {
  count: at("examples-count").textContent,
  pair: [at("a").value, at("b").value],
  chips: texts("#chosen li"),
};
set("place", "image-text on t5-base");
seen.place = [names("method"), texts("#chosen li")];
