// The page of the service. Text from documents, questions and answers is always inserted as text,
// never as markup. The server computes positions in documents, because it counts characters and
// JavaScript counts UTF-16 units.

import {
  Problem, asSentence, byId, call, element, events, failure, report, say, wire,
} from "./calls.js";

const CITED = /\[(\d{1,4})\]/g;
const BEGUN = /\[\d{0,4}$/;
const wide = matchMedia("(min-width: 64rem)");

const LEFT_OUT = "Not part of the conversation from here on.";
const FORGOTTEN = "Too far back: no longer part of the conversation.";
const turns = [];
let mostTurns = Infinity; // the service uses no more
let shown = null; // the turn whose sources are listed
let opener = null; // the element that opened the passage

// ---- asking ----

async function ask(question, signal) {
  const turn = begin(question);
  say("Searching …");
  try {
    const body = JSON.stringify({ messages: conversation(turn), stream: true });
    const response = await call("v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body,
      signal,
    });
    for await (const event of events(response)) take(turn, event);
    if (!turn.done) throw new Problem("The answer broke off.");
    say(turn.abstained ? "No answer in the sources." : "The answer is complete.");
  } catch (error) {
    if (error.status !== 401) return fail(turn, error);
    turns.pop().element.remove();
    return error;
  } finally {
    turn.answer.classList.remove("writing");
  }
}

function conversation(turn) {
  const answered = turns.filter((earlier) => earlier.done);
  const forgotten = answered.slice(0, Math.max(answered.length - mostTurns, 0));
  forgotten.filter((earlier) => !earlier.forgotten).forEach((earlier) => {
    earlier.forgotten = true;
    note(earlier, FORGOTTEN);
  });
  const messages = answered
    .slice(forgotten.length)
    .flatMap(({ question, text }) => [
      { role: "user", content: question },
      { role: "assistant", content: text },
    ]);
  return [...messages, { role: "user", content: turn.question }];
}

function take(turn, event) {
  if (event.error) throw new Problem(asSentence(event.error.message));
  const choice = event.choices[0];
  const more = event.llmpipe;
  if (more?.hits) {
    turn.hits = more.hits;
    show(turn);
    say("Writing …");
  }
  if (choice?.delta.content) write(turn, choice.delta.content);
  if (choice?.finish_reason) finish(turn, more, choice.finish_reason);
}

function fail(turn, error) {
  if (error.name === "AbortError") {
    say("Stopped.");
    note(turn, "You stopped this answer.");
    note(turn, LEFT_OUT);
    return;
  }
  say("");
  turn.element.append(element("p", "problem", failure(error), { role: "alert" }));
  note(turn, LEFT_OUT);
}

// ---- a turn ----

function begin(question) {
  const turn = { question, hits: [], citations: [], text: "", done: false, abstained: false };
  turn.element = element("article", "turn");
  turn.answer = element("div", "answer writing");
  turn.element.append(element("h2", "asked", question), turn.answer);
  byId("turns").append(turn.element);
  turns.push(turn);
  turn.element.scrollIntoView({ block: "nearest" });
  return turn;
}

function write(turn, text) {
  turn.text += text;
  const inSight = turn.answer.getBoundingClientRect().bottom < innerHeight;
  refill(turn.answer, written(turn, turn.text.replace(BEGUN, "")));
  if (inSight) turn.element.scrollIntoView({ block: "nearest" });
}

function finish(turn, { text, citations, abstained, timings }, reason) {
  Object.assign(turn, { text, citations, abstained, done: true });
  turn.answer.classList.toggle("abstained", abstained);
  refill(turn.answer, written(turn, text));
  const seconds = timings.retrieve + timings.rerank + timings.prompt + timings.generate;
  note(turn, `${seconds.toFixed(1)} s`);
  if (reason === "length") note(turn, "There was no room for more of this answer.");
  if (!abstained && !citations.length) note(turn, "No source was found for this answer.");
  if (citations.some((citation) => citation.inferred)) {
    note(turn, "≈ found by us: the answer names no source there");
  }
  if (shown === turn) show(turn);
}

// A citation gives the position of its sentence in characters, so the text is split into characters.
function written(turn, text) {
  const characters = Array.from(text);
  const inferred = turn.citations.filter((citation) => citation.inferred);
  const nodes = [];
  let at = 0;
  const upTo = (end) => {
    for (const citation of inferred.filter(({ claim }) => claim[1] > at && claim[1] <= end)) {
      const sentence = characters.slice(at, citation.claim[1]).join("");
      nodes.push(...attached(sentence, cite(turn, citation)));
      at = citation.claim[1];
    }
    nodes.push(characters.slice(at, end).join(""));
    at = end;
  };
  for (const match of text.matchAll(CITED)) {
    const start = Array.from(text.slice(0, match.index)).length;
    const target = cited(turn, Number(match[1]), start);
    if (!target) continue;
    upTo(start);
    nodes.push(...attached(nodes.pop(), cite(turn, target)));
    at = start + match[0].length;
  }
  upTo(characters.length);
  return nodes;
}

// Keep a citation on the line of the word before it.
function attached(text, button) {
  const at = text.search(/\S{0,24}\s?$/);
  const together = element("span", "together");
  together.append(text.slice(at), button);
  return [text.slice(0, at), together];
}

// The citation nearest to its number; until the answer is complete, the passage with that number.
function cited(turn, number, at) {
  const distance = ({ claim: [start, end] }) => Math.max(start - at, at - end, 0);
  const citations = turn.citations.filter((each) => each.number === number && !each.inferred);
  citations.sort((a, b) => distance(a) - distance(b));
  const hit = turn.hits.find((each) => each.rank === number);
  return citations[0] ?? (hit && { ...hit, number });
}

function cite(turn, citation) {
  const { number, title, inferred } = citation;
  const name = inferred ? `Source ${number}, found by us: ${title}` : `Source ${number}: ${title}`;
  const button = element("button", inferred ? "cite inferred" : "cite", inferred ? `≈ ${number}` : `${number}`, {
    type: "button",
    title: name,
    "aria-label": name,
    "aria-haspopup": "dialog",
    "aria-expanded": "false",
  });
  button.addEventListener("click", () => open(turn, citation, button));
  return button;
}

function note(turn, text) {
  let notes = turn.element.querySelector(".notes");
  if (!notes) {
    notes = element("div", "notes muted");
    const count = turn.hits.length;
    if (count) {
      const button = element("button", "", count === 1 ? "1 passage" : `${count} passages`, { type: "button" });
      button.addEventListener("click", () => {
        show(turn);
        byId("sources-title").scrollIntoView({ block: "nearest" });
      });
      notes.append(button);
    }
    turn.element.append(notes);
  }
  notes.append(element("span", "", text));
}

// ---- the sources ----

function show(turn) {
  shown = turn;
  const aside = document.querySelector("aside");
  aside.hidden = false;
  byId("sources-of").textContent = turn.hits.length
    ? `Why these passages: the nearest to “${turn.question}”`
    : `Nothing was near enough to “${turn.question}”`;
  refill(byId("hits"), turn.hits.map((hit) => listed(turn, hit)));
}

function listed(turn, hit) {
  const named = turn.citations.some((citation) => citation.number === hit.rank);
  const button = element("button", named ? "hit cited" : "hit", "", {
    type: "button",
    "aria-haspopup": "dialog",
    "aria-expanded": "false",
  });
  button.append(
    element("span", "rank", `${hit.rank}`),
    element("span", "place", place(hit)),
    element("span", "text", hit.text),
    element("span", "scores", [named && "cited", ...scores(hit)].filter(Boolean).join(" · ")),
  );
  button.addEventListener("click", () => open(turn, hit, button));
  const item = element("li");
  item.append(button);
  return item;
}

function scores(hit) {
  const ranked = (rank) => (rank === null ? "" : ` (place ${rank})`);
  return [
    hit.rerank_score !== null && `reranker ${hit.rerank_score.toFixed(2)}`,
    hit.dense_score !== null && `cosine ${hit.dense_score.toFixed(2)}${ranked(hit.dense_rank)}`,
    hit.bm25_score !== null && `BM25 ${hit.bm25_score.toFixed(1)}${ranked(hit.bm25_rank)}`,
  ];
}

function place({ title, section, pages }) {
  const names = [title, ...section].filter((name, i, all) => name && name !== all[i - 1]);
  return [names.join(" › "), paged(pages)].filter(Boolean).join(", ");
}

function paged(pages) {
  if (!pages) return "";
  return pages[0] === pages[1] ? `page ${pages[0]}` : `pages ${pages[0]}–${pages[1]}`;
}

// ---- a passage ----

async function open(turn, { document: name, start, end }, button) {
  if (shown !== turn) show(turn);
  let passage;
  try {
    const response = await call(`v1/documents/${encodeURIComponent(name)}?start=${start}&end=${end}`);
    passage = await response.json();
  } catch (error) {
    report(error);
    return;
  }
  const dialog = byId("passage");
  const quote = element("mark", "", passage.quote);
  byId("passage-title").textContent = place({ ...passage, pages: null });
  byId("passage-place").textContent = [passage.document, paged(passage.pages)].filter(Boolean).join(", ");
  byId("passage-text").replaceChildren(
    passage.cut_before ? "… " : "", passage.before, quote, passage.after, passage.cut_after ? " …" : "",
  );
  opener?.setAttribute("aria-expanded", "false");
  opener = button;
  button.setAttribute("aria-expanded", "true");
  if (!dialog.open) wide.matches ? dialog.show() : dialog.showModal();
  quote.scrollIntoView({ block: "center" });
  byId("passage-title").focus({ preventScroll: true });
}

function close() {
  byId("passage").close();
  closed();
}

// The event comes some time after the call; the user may have moved the focus by then.
function closed() {
  if (!opener || byId("passage").open) return;
  opener.setAttribute("aria-expanded", "false");
  (opener.isConnected ? opener : byId("question")).focus();
  opener = null;
}

// ---- helpers ----

// Replace buttons, but keep the focus and the element that a passage returns to.
function refill(container, nodes) {
  const buttons = () => [...container.querySelectorAll("button")];
  const [focused, opened] = [document.activeElement, opener].map((each) => buttons().indexOf(each));
  container.replaceChildren(...nodes);
  if (opened >= 0) {
    opener = buttons()[opened];
    opener?.setAttribute("aria-expanded", "true");
  }
  if (focused >= 0) buttons()[focused]?.focus({ preventScroll: true });
}

async function introduce() {
  const { data: [model] } = await (await call("v1/models")).json();
  const { documents, most_turns } = model.llmpipe;
  mostTurns = most_turns;
  const number = documents === 1 ? "one document" : `${documents.toLocaleString("en")} documents`;
  const made = new Date(model.created * 1000);
  const time = Object.assign(document.createElement("time"), {
    dateTime: made.toISOString(),
    textContent: made.toLocaleString("en-GB", { dateStyle: "long", timeStyle: "short" }),
  });
  byId("about").replaceChildren(
    `Answers from ${number}, with the passages that they rest on. Index made on `, time, ".");
}

byId("close").addEventListener("click", close);
byId("passage").addEventListener("close", closed);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !byId("passage").open) return;
  event.preventDefault();
  close();
});
wide.addEventListener("change", () => byId("passage").open && close());
wire({ ask, introduce });
