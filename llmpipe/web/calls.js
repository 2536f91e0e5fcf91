// What the pages have in common: how they call their service, how they build elements, and the form
// by which one asks. Text is always inserted as text, never as markup.

export const KEY = "llmpipe-api-key";
export const byId = (id) => document.getElementById(id);
export const asSentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

export class Problem extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export async function call(path, options = {}) {
  const headers = new Headers(options.headers);
  const key = sessionStorage.getItem(KEY);
  if (key) authorize(headers, key);
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  const message = told.error?.message ?? told.message ?? `The service answers ${response.status}.`;
  throw new Problem(asSentence(message), response.status);
}

function authorize(headers, key) {
  try {
    headers.set("Authorization", `Bearer ${key}`);
  } catch {
    throw new Problem("The key has characters that cannot be sent. Copy it once more.", 401);
  }
}

export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new Problem("The connection broke in the middle of the answer.");
    });
    if (done) return;
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      if (!part.startsWith("data: ")) continue; // a comment that keeps the connection open
      const data = part.slice("data: ".length);
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

export function element(name, className = "", text = "", attributes = {}) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
}

export const say = (text) => { byId("status").textContent = text; };

export function askForKey(reason = "") {
  sessionStorage.removeItem(KEY);
  byId("key").hidden = false;
  byId("key-field").focus();
  say(reason);
}

// Say what went wrong with a call beside the conversation.
export function report(error) {
  if (error.status === 401) askForKey(error.message);
  else say(error.message);
}

// The text for a failure inside a turn.
export function failure(error) {
  if (!(error instanceof Problem)) console.error(error);
  return error instanceof Problem ? error.message : "This page has a bug here.";
}

// Wire the form: ask, Enter, stop, the key, and "/" that leads to the question.
//   ask(question, signal)  answers a question; returns the refusal (401) if a key is missing
//   introduce(health)      shows what the service is
//   ready()                whether a question can be sent now; it says why not
export function wire({ ask, introduce, ready = () => true }) {
  let asking = null; // stops the answer in progress
  let waiting = null; // the question that waits for the key

  async function start(question) {
    asking = new AbortController();
    busy(true);
    const refused = await ask(question, asking.signal);
    asking = null;
    busy(false);
    if (!refused) return;
    waiting = question;
    askForKey(refused.message);
  }

  function busy(is) {
    const [comes, goes] = is ? ["stop", "send"] : ["send", "stop"];
    const focused = document.activeElement === byId(goes);
    byId(comes).hidden = false;
    byId(goes).hidden = true;
    if (focused) byId(is ? "stop" : "question").focus();
  }

  function submit() {
    const question = byId("question").value.trim();
    if (!question || asking || !ready()) return;
    byId("question").value = "";
    start(question);
  }

  async function begin() {
    try {
      const health = await (await call("health")).json();
      byId("name").textContent = document.title = health.name ?? health.stage;
      if (health.key_required && !sessionStorage.getItem(KEY)) return askForKey();
      await introduce(health);
    } catch (error) {
      report(error);
    }
  }

  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  byId("question").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  byId("stop").addEventListener("click", () => {
    asking?.abort();
    byId("question").focus();
  });
  byId("key").addEventListener("submit", async (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, byId("key-field").value);
    byId("key-field").value = "";
    byId("key").hidden = true;
    byId("question").focus();
    await begin();
    if (waiting && byId("key").hidden) start(waiting);
    waiting = byId("key").hidden ? null : waiting;
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input, textarea");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    byId("question").focus();
  });
  begin();
}
