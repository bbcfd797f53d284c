// Numbers, times and limits in words.

export const number = (value) => Math.round(value).toLocaleString("en");

export function count(value, what) {
  return `${number(value)} ${what}${Math.round(value) === 1 ? "" : "s"}`;
}

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86_400;

/** How long ago something was, in seconds since 1970 by the service's clock. */
export function ago(then, now) {
  if (!then) return "never";
  const past = Math.max(0, now - then);
  if (past < MINUTE) return "just now";
  if (past < HOUR) return `${Math.floor(past / MINUTE)} min ago`;
  if (past < DAY) return `${Math.floor(past / HOUR)} h ago`;
  return `${count(Math.floor(past / DAY), "day")} ago`;
}

export const here = Intl.DateTimeFormat().resolvedOptions().timeZone || "local time";

/** A moment in the browser's own zone. */
export function moment(seconds) {
  return new Date(seconds * 1000).toLocaleString("en-GB", {
    weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit",
  });
}

export function day(seconds) {
  return new Date(seconds * 1000).toLocaleDateString("en-GB", { weekday: "short", day: "numeric" });
}

/** The words for one limit of an allowance. */
export function limitWords(name, value, zone) {
  if (name === "hours") return value?.length ? `${value.join(", ")} (${zone})` : "at any hour";
  if (name === "models") return value?.length ? value.join(", ") : "all models";
  if (value === null || value === undefined) return "no limit";
  return number(value);
}
