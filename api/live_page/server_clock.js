// The clock of the server's database, by which holds lapse and sales start. The browser's own may be hours wrong, and may be
// set while the page is open; performance.now() goes on evenly, but stands still while the machine sleeps.

const MOST_DRIFT = 1e-4; // of performance.now()
const APART = 500; // milliseconds between the two clocks of the browser: one was set, or has slept

export class ServerClock {
  constructor() {
    this.offset = null; // from performance.now() to the database's time, in milliseconds
    this.doubt();
  }

  /** The database's time in milliseconds; before the first response, the browser's. */
  now() {
    return this.offset === null ? Date.now() : performance.now() + this.offset; // guard: page-clock
  }

  /**
   * A response says what time it was between these two times of performance.now(). In the middle of them, that is at most
   * half their distance off; the most exact response counts, unless a later one contradicts it.
   */
  addSample(at, sent, received) {
    const offset = at - (sent + received) / 2; // guard: page-clock-offset
    const error = (received - sent) / 2;
    const drift = (received - this.set) * MOST_DRIFT;
    const agrees = Math.abs(offset - this.offset) <= error + this.error + drift;
    if (agrees && error > this.error + drift) return;
    this.offset = offset;
    this.error = error;
    this.set = received;
  }

  /** A message of the stream took an unknown time: by now it is as late as it says at least. */
  addLowerBound(at) {
    this.offset = Math.max(this.offset ?? -Infinity, at - performance.now());
  }

  /** Whether one of the browser's clocks was set or has slept, so that the time must be asked for again. */
  get isDoubtful() {
    return Math.abs(Date.now() - performance.now() - this.apart) > APART;
  }

  /** Count the next response, however inexact. */
  doubt() {
    this.error = Infinity;
    this.set = 0;
    this.apart = Date.now() - performance.now();
  }
}
