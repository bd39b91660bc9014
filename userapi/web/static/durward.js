// Improves what works without it: states and steps are told as they come. Text becomes text, never markup.
const IDLE = 20 * 60 * 1000; // without a key or a click the page asks no more, so that the login can end by itself
const said = document.getElementById("said");
const live = document.querySelector("[data-live]");
let source = null;
const quiet = said ? said.textContent : "";
let failures = 0; // one after the other
const LEFT = "touched"; // a page that loads itself again has not been touched by that
let touched = Number(sessionStorage.getItem(LEFT)) || Date.now();
sessionStorage.removeItem(LEFT);
let late = 0; // the timer after which it is said that nothing is told
let number = 0; // of the step that was told last: each connection tells all of them
let sent = false; // a form is: what it leads to is loaded next, and nothing else

function say(text) {
  if (said) said.textContent = text;
}

function idle() {
  return Date.now() - touched > IDLE;
}

function again() {
  if (idle()) {
    rest();
    return;
  }
  sessionStorage.setItem(LEFT, touched);
  location.reload();
}

function over() {
  stop();
  location.reload(); // to the login, where that is over: what was shown is for those who may view it
}

function rest() {
  stop();
  clearTimeout(late);
  say("Not told any more, as nobody is here: press a key.");
}

function age(since) {
  const seconds = Math.max(0, Math.floor((Date.now() - Date.parse(since)) / 1000));
  if (Number.isNaN(seconds)) return since || "–";
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m`;
  const hours = Math.floor(seconds / 3600);
  if (hours < 24) return `${hours}h${String(Math.floor((seconds % 3600) / 60)).padStart(2, "0")}`;
  return `${Math.floor(hours / 24)}d`;
}

function ages() {
  for (const time of document.querySelectorAll("tr time[datetime]")) {
    if (time.dateTime) time.textContent = age(time.dateTime);
  }
}

function show(row, told) {
  const [state, pid, since, text] = row.querySelectorAll("td");
  if (row.dataset.state !== told.state) say(`${told.process} is ${told.state}`);
  row.dataset.state = told.state;
  state.firstElementChild.textContent = told.state;
  pid.textContent = told.pid || "–";
  const time = since.firstElementChild;
  time.dateTime = time.title = told.since;
  time.textContent = told.since ? age(told.since) : "–";
  text.textContent = told.said;
}

function heard() {
  failures = 0;
  clearTimeout(late);
  late = 0;
  if (said && said.dataset.lost) say(quiet || "Told again: this is how it is now.");
  if (said) delete said.dataset.lost;
}

function lost() {
  late ||= setTimeout(() => {
    if (said) said.dataset.lost = "true";
    say("Not told just now, so what is shown may be old. It is tried again; if this stays, load the page again.");
  }, 2000);
}

function rows(event) {
  heard();
  const { whole, rows } = JSON.parse(event.data);
  const known = new Map([...live.querySelectorAll("[data-process]")].map((row) => [row.dataset.process, row]));
  if (rows.some((told) => !known.has(told.process)) || (whole && rows.length !== known.size)) {
    again(); // there are others than were shown
    return;
  }
  for (const told of rows) show(known.get(told.process), told);
}

function step(event) {
  number += 1;
  if (number <= live.children.length) return;
  const item = document.createElement("li");
  item.textContent = JSON.parse(event.data).text;
  live.append(item);
}

function failed() {
  failures += 1;
  if (!idle()) lost();
  if (!idle() && source && source.readyState !== EventSource.CLOSED) return; // it asks again by itself
  stop();
  if (idle()) rest();
  else setTimeout(start, 3000 * Math.min(failures, 10)); // too many pages at once, or the login is over
}

function stop() {
  if (source) source.close();
  source = null;
}

function start() {
  if (source || sent || document.hidden) return;
  source = new EventSource(live.dataset.live);
  source.addEventListener("open", () => {
    number = 0;
    heard();
  });
  source.addEventListener("rows", rows);
  source.addEventListener("step", step);
  source.addEventListener("ended", () => {
    stop();
    again();
  });
  source.addEventListener("refused", over);
  source.addEventListener("error", failed);
}

function touch() {
  const away = idle();
  touched = Date.now();
  if (away && !source) {
    say(quiet);
    failures = 0;
    start();
  }
}

if (live) {
  for (const name of ["pointerdown", "keydown"]) addEventListener(name, touch);
  addEventListener("submit", () => {
    sent = true;
    stop();
  });
  addEventListener("pageshow", () => {
    sent = false;
    start();
  });
  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : start()));
  setInterval(ages, 15000);
  start();
}
