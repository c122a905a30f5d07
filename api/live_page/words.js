// Instants, durations and counts as text; instants in the browser's time zone.

const TIME = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
const DAY = { weekday: "short", day: "numeric", month: "short" };

/** The time of day. @param {number} t in milliseconds */
export function clock(t) {
  return new Date(t).toLocaleTimeString([], TIME);
}

/** An instant, with its day unless that is today. */
export function moment(t, now = Date.now()) {
  const [then, today] = [new Date(t), new Date(now)];
  return then.toDateString() === today.toDateString() ? clock(t) : `${then.toLocaleDateString([], DAY)}, ${clock(t)}`;
}

/** What is left of a time: 0:09, 12:34, 1:02:03, 2 d 1:02:03. */
export function countdown(left) {
  const seconds = Math.max(0, Math.ceil(left / 1000));
  const [days, hours, minutes] = [seconds / 86_400, (seconds / 3600) % 24, (seconds / 60) % 60].map(Math.floor);
  const parts = [...(days || hours ? [hours, padded(minutes)] : [minutes]), padded(seconds % 60)];
  return `${days ? `${days} d ` : ""}${parts.join(":")}`;
}

export function units(count) {
  return count === 1 ? "1 unit" : `${count} units`;
}

/** What a limit leaves to a buyer. */
export function allowed({ taken, remaining }) {
  return taken ? `you have ${taken}, and may have ${remaining || "no"} more` : `you have none, and may have ${remaining}`;
}

function padded(number) {
  return String(number).padStart(2, "0");
}
