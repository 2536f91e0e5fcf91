// The chat with a served model. If the service has a second model to compare with, both answer the
// same message side by side, each in a conversation of its own.

import { Problem, asSentence, byId, call, element, events, failure, say, wire } from "./calls.js";

const turns = [];
let models = []; // the names of the models, the stage's own first

// ---- asking ----

async function ask(question, signal) {
  const turn = begin(question);
  byId("clear").disabled = true;
  say("Writing …");
  const settings = chosen();
  const outcomes = await Promise.allSettled(
    turn.answers.map((answer) => receive(answer, request(turn, answer, settings), signal)),
  );
  byId("clear").disabled = false;
  const failed = outcomes.map(({ reason }) => reason).filter(Boolean);
  const refused = failed.find(({ status }) => status === 401);
  if (refused) {
    turns.pop().element.remove();
    return refused;
  }
  say(failed.length ? "" : turn.answers.length > 1 ? "The answers are complete." : "The answer is complete.");
  if (failed.some(({ name }) => name === "AbortError")) say("Stopped.");
  outcomes.forEach(({ reason }, at) => reason && fail(turn.answers[at], reason));
  turn.answers
    .filter((answer) => !goesOn(answer))
    .forEach((answer) => note(answer, "Not part of the conversation from here on."));
  byId("clear").hidden = !turns.length;
}

function chosen() {
  return {
    system: byId("system").value.trim(),
    temperature: byId("temperature").valueAsNumber,
    max_tokens: byId("most").valueAsNumber,
  };
}

// The earlier messages that this model has answered, then the new one.
function request(turn, { model }, { system, ...sampling }) {
  const earlier = turns
    .map(({ question, answers }) => ({ question, answer: answers.find((each) => each.model === model) }))
    .filter(({ answer }) => goesOn(answer))
    .flatMap(({ question, answer }) => [
      { role: "user", content: question },
      { role: "assistant", content: answer.text },
    ]);
  const first = system ? [{ role: "system", content: system }] : [];
  const messages = [...first, ...earlier, { role: "user", content: turn.question }];
  return { model, messages, stream: true, ...sampling };
}

// Only these are part of later requests: a model cannot go on from half an answer, or from none.
const goesOn = (answer) => Boolean(answer?.done && answer.text);

async function receive(answer, body, signal) {
  const begun = performance.now();
  try {
    const response = await call("v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal,
    });
    for await (const event of events(response)) take(answer, event, begun);
    if (!answer.done) throw new Problem("The answer broke off.");
  } finally {
    answer.says.classList.remove("writing");
  }
}

function take(answer, event, begun) {
  if (event.error) throw new Problem(asSentence(event.error.message));
  const choice = event.choices[0];
  if (choice?.delta.reasoning_content) think(answer, choice.delta.reasoning_content);
  if (choice?.delta.content) write(answer, choice.delta.content);
  if (choice?.finish_reason) finish(answer, event, choice.finish_reason, begun);
}

function finish(answer, { timings }, reason, begun) {
  answer.done = true;
  const seconds = `${((performance.now() - begun) / 1000).toFixed(1)} s`;
  note(answer, timings ? `${seconds}, ${counted(timings.predicted_n, "token", "tokens")}` : seconds);
  if (reason === "length") note(answer, "There was no room for more of this answer.");
  if (!answer.text) note(answer, "The answer is empty.");
}

function fail(answer, error) {
  if (error.name === "AbortError") {
    note(answer, "You stopped this answer.");
    return;
  }
  answer.element.append(element("p", "problem", failure(error), { role: "alert" }));
}

// ---- a turn ----

function begin(question) {
  const turn = { question, answers: models.map(begun) };
  turn.element = element("article", "turn");
  const columns = element("div", "columns");
  columns.append(...turn.answers.map((answer) => answer.element));
  turn.element.append(element("h2", "asked", question), columns);
  byId("turns").append(turn.element);
  turns.push(turn);
  turn.element.scrollIntoView({ block: "nearest" });
  return turn;
}

function begun(model) {
  const answer = { model, text: "", done: false, thought: null };
  answer.element = element("section", "column", "", { "aria-label": model });
  answer.says = element("div", "answer writing");
  if (models.length > 1) answer.element.append(element("h3", "muted", model));
  answer.element.append(answer.says);
  return answer;
}

function write(answer, text) {
  answer.text += text;
  const inSight = answer.says.getBoundingClientRect().bottom < innerHeight;
  answer.says.append(text);
  if (inSight) answer.element.scrollIntoView({ block: "nearest" });
}

function think(answer, text) {
  if (!answer.thought) {
    answer.thought = element("div", "thought muted");
    const details = element("details");
    details.append(element("summary", "", "Reasoning"), answer.thought);
    answer.says.before(details);
  }
  answer.thought.append(text);
}

function note(answer, text) {
  let notes = answer.element.querySelector(".notes");
  if (!notes) {
    notes = element("div", "notes muted");
    answer.element.append(notes);
  }
  notes.append(element("span", "", text));
}

// ---- helpers ----

function ready() {
  if (!models.length) say("The service has not told its models yet.");
  for (const name of ["temperature", "most"]) {
    if (byId(name).validity.valid) continue;
    byId("settings").open = true;
    byId(name).reportValidity();
    return false;
  }
  return models.length > 0;
}

function clear() {
  turns.splice(0).forEach((turn) => turn.element.remove());
  byId("clear").hidden = true;
  say("");
  byId("question").focus();
}

const counted = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

async function introduce(health) {
  const { data } = await (await call("v1/models")).json();
  models = data.map(({ id }) => id);
  const slots = counted(health.slots, "conversation", "conversations");
  const context = counted(health.context, "token", "tokens");
  const threads = counted(health.threads, "thread", "threads");
  byId("about").textContent = `${slots} at a time, ${context} each, on ${threads}.`;
  if (models.length > 1) byId("about").append(` Answers of ${models.join(" and ")} side by side.`);
}

byId("clear").addEventListener("click", clear);
wire({ ask, introduce, ready });
