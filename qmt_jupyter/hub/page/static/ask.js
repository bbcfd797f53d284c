// Asks the service, and says in one sentence what went wrong.

const XSRF = document.querySelector('meta[name="qmt-xsrf"]').content;
const AWAY = "The service does not answer. This page tries again by itself.";
const LONGEST_MS = 20_000;
const LONGEST_PAUSE_MS = 30_000;

export class Problem extends Error {
  constructor(sentence, { status = 0, nextStep = "" } = {}) {
    super(nextStep ? `${sentence} ${nextStep}` : sentence);
    this.status = status;
  }
}

/** The JSON of an answer. Throws a Problem. */
export async function ask(path, body) {
  const request = {
    headers: { "X-XSRFToken": XSRF, Accept: "application/json" },
    credentials: "same-origin",
    redirect: "error",
    cache: "no-store",
    signal: AbortSignal.timeout(LONGEST_MS),
  };
  if (body !== undefined) {
    request.method = "POST";
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  let answer;
  let read;
  try {
    answer = await fetch(path, request);
    read = await answer.json();
  } catch {
    throw new Problem(AWAY, { status: answer?.status });
  }
  if (answer.ok) return read;
  throw new Problem(read.sentence ?? AWAY, { status: answer.status, nextStep: read.next_step });
}

/**
 * Call `look` every so many milliseconds while the page is visible; after a problem in 4 s, 8 s, …
 * `tell` gets the problem, or null when all is well. Answers a function that looks at once.
 */
export function watch(look, everyMs, tell) {
  let timer = 0;
  let running = false;
  let again = false;
  let failed = 0;

  async function turn() {
    clearTimeout(timer);
    if (document.hidden) return;
    if (running) {
      again = true;
      return;
    }
    running = true;
    try {
      await look();
      failed = 0;
      tell(null);
    } catch (problem) {
      failed += 1;
      tell(problem);
      if (!(problem instanceof Problem)) console.error(problem);
    }
    running = false;
    const pause = failed ? Math.min(2_000 * 2 ** failed, LONGEST_PAUSE_MS) : everyMs;
    const wait = again ? 0 : pause;
    again = false;
    timer = setTimeout(turn, wait);
  }

  document.addEventListener("visibilitychange", turn);
  turn();
  return turn;
}

const troubles = new Map();

/** Shows the problem of one part of the page until that part is well again. */
export function teller(part) {
  return (problem) => {
    if (problem) troubles.set(part, problem);
    else troubles.delete(part);
    // Who is signed out need not know what else is wrong.
    const signedOut = [...troubles.values()].filter((each) => each.status === 401);
    const told = signedOut.length ? signedOut : [...troubles.values()];
    const said = [...new Set(told.map((each) => each.message))].join(" ");
    const node = document.getElementById("trouble");
    if (node.textContent !== said) node.textContent = said;
  };
}

/** Says what has changed, to those who hear the page, too. */
export function say(text) {
  document.getElementById("news").textContent = text;
}
