// The live page: asks for the numbers each second while somebody looks, and puts them where they belong.

const EVERY = 1000; // ms
const PATIENCE = 5000; // ms, after which the proxy counts as gone
const KEY = "penstock.key";
const LATELY = 10; // seconds that a rate is the mean of

const find = (id) => document.getElementById(id);

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const count = (number) => (number < 1e5 ? whole : short).format(number);
const rate = (number) => (number > 0 && number < 10 ? number.toFixed(1) : count(number));

function dollars(sum) {
  if (sum === 0) return "$0";
  const places = sum >= 1000 ? 0 : sum >= 1 ? 2 : sum >= 0.001 ? 4 : 6;
  return "$" + sum.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
}

function time(seconds) {
  if (seconds < 0.01) return (seconds * 1000).toFixed(1) + " ms";
  if (seconds < 1) return (seconds * 1000).toFixed(0) + " ms";
  return seconds.toFixed(seconds < 10 ? 2 : seconds < 100 ? 1 : 0) + " s";
}

function span(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = Math.max(0, parts.findIndex(([unit]) => seconds >= unit));
  let left = seconds;
  const said = parts.slice(first < 0 ? 3 : first, first + 2).map(([unit, name]) => {
    const number = Math.floor(left / unit);
    left -= number * unit;
    return `${number} ${name}`;
  });
  return seconds < 1 ? "0 s" : said.join(" ");
}

const plural = (number, one) => `${count(number)} ${one}${number === 1 ? "" : "s"}`;
const sum = (numbers) => numbers.reduce((all, number) => all + number, 0);

// Only what has changed is touched: a selection stays, and a screen reader is not made to start again.
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function set(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

// A line of the last minute, the oldest second on the left.
function draw(svg, values, label) {
  const top = Math.max(1, ...values);
  const points = values.map((value, x) => `${x},${(19 - (value / top) * 17).toFixed(2)}`).join(" L");
  if (!svg.firstChild) {
    for (const name of ["area", "edge"]) {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("class", name);
      svg.append(path);
    }
  }
  const [area, edge] = svg.children;
  set(area, "d", `M0,20 L${points} L${values.length - 1},20 Z`);
  set(edge, "d", `M${points}`);
  set(svg, "aria-label", label);
}

// A table's body; each row is a list of texts, or of {text, title, health, bad, left}, the first being its name.
function fill(id, rows, none) {
  const body = find(id).tBodies[0];
  const lines = rows.length ? rows : [[{ none }]];
  while (body.rows.length > lines.length) body.deleteRow(-1);
  lines.forEach((cells, place) => {
    const row = body.rows[place] ?? body.insertRow();
    const heads = cells[0].none === undefined;
    if (row.cells.length !== cells.length || (row.cells[0].tagName === "TH") !== heads) {
      row.replaceChildren(...cells.map((_, column) => document.createElement(column === 0 && heads ? "th" : "td")));
    }
    cells.forEach((cell, column) => {
      const element = row.cells[column];
      if (column === 0 && heads) element.scope = "row";
      if (cell.none !== undefined) {
        element.className = "none";
        element.colSpan = 20;
        return say(element, cell.none);
      }
      const { text = cell, title, health, bad, left } = cell;
      set(element, "class", [bad && "bad", left && "text"].filter(Boolean).join(" "));
      if (title !== undefined) set(element, "title", title);
      if (health === undefined) return say(element, text);
      const mark = element.firstElementChild ?? element.appendChild(document.createElement("span"));
      mark.className = "health";
      mark.dataset.health = health;
      say(mark, text);
    });
  });
}

const failures = (number) => ({ text: count(number), bad: number > 0 });
const percentiles = (times) => (times ?? [null, null, null]).map((at) => (at === null ? "–" : time(at)));

function whose(key, master) {
  if (key.name) return { text: key.name, title: key.id };
  return key.id ? { text: key.id + "…" } : { text: master ? "master key" : "without a key" };
}

function show(told) {
  const { seconds, totals } = told;
  const mean = (values) => sum(values.slice(-LATELY)) / LATELY;
  say(find("version"), told.version);
  say(find("uptime"), "up " + span(told.uptime));
  say(find("under-way"), count(told.under_way));
  const waiting = [told.jobs && plural(told.jobs, "plan"), told.rows && plural(told.rows, "row")].filter(Boolean);
  say(find("waiting"), waiting.length ? waiting.join(" and ") + " waiting" : "nothing waits");
  say(find("streams"), count(told.streams));
  const up = told.deployments.filter((deployment) => deployment.health === "up").length;
  say(find("deployments-up"), `${up} of ${plural(told.deployments.length, "deployment")} up`);
  say(find("requests"), rate(mean(seconds.requests)));
  say(find("requests-total"), count(totals.requests) + " in all");
  say(find("tokens"), rate(mean(seconds.tokens)));
  say(find("tokens-total"), count(totals.prompt + totals.completion) + " in all");
  const errors = sum(seconds.errors);
  say(find("errors"), count(errors));
  say(find("errors-total"), count(sum(told.errors.map((error) => error.total))) + " in all");
  say(find("cost"), dollars(totals.cost));
  draw(find("requests-spark"), seconds.requests, `Requests in the last minute: ${sum(seconds.requests)}`);
  draw(find("tokens-spark"), seconds.tokens, `Tokens in the last minute: ${sum(seconds.tokens)}`);
  draw(find("errors-spark"), seconds.errors, `Errors in the last minute: ${errors}`);

  fill("models", told.groups.map((group) => [
    { text: group.name, title: group.name }, count(group.requests), count(group.minute), failures(group.errors),
    count(group.prompt), count(group.cached), count(group.completion), count(group.reasoning), dollars(group.cost),
  ]), "No requests yet.");
  fill("latency", told.groups.filter((group) => group.first_token || group.duration).map((group) => [
    { text: group.name, title: group.name }, ...percentiles(group.first_token), ...percentiles(group.duration),
  ]), "No answers in the last five minutes.");
  fill("keys", told.keys.map((key) => [
    whose(key, told.master), count(key.requests), count(key.minute), failures(key.errors),
    count(key.prompt + key.completion), dollars(key.cost),
  ]), "No requests yet.");
  const classes = told.errors.toSorted((a, b) => b.minute - a.minute || b.total - a.total);
  fill("classes", classes.map((error) => [
    error.class, failures(error.minute), count(error.total),
  ]), "No errors. May it stay so.");
  const deployments = told.deployments.toSorted((a, b) => a.group.localeCompare(b.group) || a.id.localeCompare(b.id));
  fill("deployments", deployments.map((deployment) => [
    { text: deployment.id, title: `${deployment.provider}: ${deployment.model}` },
    {
      text: deployment.health === "cooling" ? `cooling, ${span(deployment.cooling)}` : deployment.health,
      health: deployment.health, left: true,
    },
    { text: deployment.group, left: true },
    count(deployment.in_flight), count(deployment.answered), failures(deployment.failed),
  ]), "There are none.");
}

let key = sessionStorage.getItem(KEY) ?? "";
let timer = 0;
let asking = null;
let heard = Date.now();

function state(name, text) {
  find("state").dataset.state = name;
  say(find("state"), text);
}

function notice(text) {
  find("notice").hidden = !text;
  say(find("notice"), text);
  document.body.classList.toggle("stale", Boolean(text));
}

function knock(why) {
  key = "";
  sessionStorage.removeItem(KEY);
  find("live").hidden = find("forget").hidden = true;
  const closed = find("door").hidden;
  find("door").hidden = false;
  say(find("wrong"), why);
  if (closed || why) find("key").focus();
  notice("");
  state("locked", "locked");
}

// Why a key is not the right one, said to whoever typed it.
async function refused(response) {
  const told = await response.json().catch(() => ({}));
  if (response.status === 403) {
    return "This key may ask for answers; the numbers need the master key (general_settings.master_key).";
  }
  const known = { key_expired: "This key has expired.", key_blocked: "This key is blocked." };
  return known[told.error?.code] ?? "This is not the master key of this proxy. Is it all there?";
}

async function ask() {
  clearTimeout(timer);
  asking?.abort();
  const mine = asking = new AbortController();
  const patience = setTimeout(() => mine.abort(), PATIENCE);
  let again = true;
  try {
    const headers = key ? { authorization: `Bearer ${key}` } : {};
    const response = await fetch("live", { headers, signal: mine.signal, cache: "no-store" });
    if (response.status === 401 || response.status === 403) {
      again = false;
      knock(key ? await refused(response) : "");
    } else if (response.ok) {
      const told = await response.json();
      heard = Date.now();
      if (key) sessionStorage.setItem(KEY, key);
      find("key").value = "";
      find("door").hidden = true;
      find("live").hidden = false;
      find("forget").hidden = !key;
      show(told);
      notice(told.draining ? "The proxy is being shut down: it takes no more requests, and waits for those under way." : "");
      state(told.draining ? "draining" : "live", told.draining ? "shutting down" : "live");
    } else {
      throw new Error(`status ${response.status}`);
    }
  } catch {
    if (asking === mine) {
      // Said once and not each second: what counts up stands in the state, which is not read out.
      notice("The proxy does not answer. These are its last numbers; it is asked again each second.");
      state("gone", `gone for ${span((Date.now() - heard) / 1000)}`);
    }
  } finally {
    clearTimeout(patience);
  }
  if (again && asking === mine && !document.hidden) timer = setTimeout(ask, EVERY);
}

find("door").addEventListener("submit", (event) => {
  event.preventDefault();
  key = find("key").value.trim();
  if (key) ask();
});
find("forget").addEventListener("click", () => {
  asking?.abort();
  asking = null;
  clearTimeout(timer);
  knock("");
});
document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (document.hidden) state("paused", "paused");
  else if (find("door").hidden) ask();
});
ask();
