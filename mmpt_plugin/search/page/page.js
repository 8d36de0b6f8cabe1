// The page: its address says what is shown, so that links and Back work.

import { $, ask, clock, closePlayer, make, onPlayer, openPlayer, span } from "./player.js";

const STEP = 24; // moments of a page
const MOST = 96;
const RECENT = 8;
const STRONG = 4; // standard deviations of a full bar
let moments = [];
let videos = { videos: [], total: 0 };
let count = STEP;
let searched = null; // what the results are for
let focusFirst = false; // whether the next results take the focus
let asking = new AbortController();
let collection = null; // the last status
let leaving = null; // the changes to make once the browser has gone back, while it does

/** The page's address as an object. */
function read() {
  const given = new URLSearchParams(location.search);
  const get = (name) => given.get(name) ?? "";
  return {
    q: get("q"), like: get("like"), folder: get("folder"), min: get("min"), max: get("max"), play: get("play"),
    whole: get("whole"),
  };
}

/** What the results depend on. */
function readSearch() {
  const { play, whole, ...search } = read();
  return search;
}

/** Change a part of the address and show what it says. */
function go(changes, { replace = false, opened = false } = {}) {
  if (leaving) {
    leaving.push(changes);
    return;
  }
  const values = Object.entries({ ...read(), ...changes }).filter(([, value]) => value);
  const query = new URLSearchParams(values).toString();
  const address = query ? `/?${query}` : "/";
  const same = address === location.pathname + location.search;
  history[replace || same ? "replaceState" : "pushState"]({ opened }, "", address);
  show();
}

const written = (moment) => `${moment.video}@${moment.start}-${moment.end}`;

/** The moment that an address names, `VIDEO@START-END`. */
function parsed(text) {
  const found = /^(.*)@([\d.]+)-([\d.]+)$/s.exec(text);
  return found && { video: found[1], start: Number(found[2]), end: Number(found[3]) };
}

function show() {
  const state = read();
  $("q").value = state.q;
  showFilters(state);
  showRecent();
  const search = readSearch();
  const key = JSON.stringify(search);
  if (key !== searched) {
    searched = key;
    count = STEP;
    find(search);
  }
  const moment = parsed(state.play);
  if (moment) openPlayer({ ...moment, whole: Boolean(state.whole) }, moments);
  else closePlayer();
  showNeighbours();
  const said = state.q || (state.like && "similar moments");
  document.title = said ? `${said} – Video search` : "Video search";
}

async function find(search) {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  stopPictures();
  const began = performance.now();
  $("results").setAttribute("aria-busy", "true");
  $("problem").hidden = true;
  try {
    const kind = search.q ? "search" : search.like ? "similar" : "videos";
    const { q, like, ...filters } = search;
    const own = kind === "search" ? { q, k: count } : kind === "similar" ? { ...parsed(like), k: count } : {};
    const answer = await ask(`/api/${kind}`, { ...own, ...filters }, { signal });
    moments = answer.moments ?? [];
    if (kind === "videos") showVideos(answer);
    else showMoments(search, performance.now() - began);
    if (kind === "search") remember(q);
  } catch (error) {
    if (error.name === "AbortError") return;
    moments = [];
    $("results").replaceChildren();
    $("title").replaceChildren();
    $("more").hidden = $("strength").hidden = true;
    $("problem").textContent = error.message;
    $("problem").hidden = false;
  }
  $("results").setAttribute("aria-busy", "false");
  showEmpty();
  showNeighbours();
}

/** Stop loading the pictures of the last results: a browser has few connections, which the search needs. */
function stopPictures() {
  for (const picture of $("results").querySelectorAll("img")) if (!picture.complete) picture.removeAttribute("src");
}

function showMoments(search, milliseconds) {
  const strongest = Math.max(STRONG, ...moments.map((moment) => moment.strength));
  $("results").replaceChildren(...moments.map((moment) => momentCard(moment, strongest)));
  const number = `${moments.length} moment${moments.length === 1 ? "" : "s"}`;
  const liked = parsed(search.like);
  const text = search.q ? `“${search.q}”` : `Similar to ${liked.video.split("/").pop()}, ${span(liked)}`;
  const small = make("small", "", `  ${number} in ${(milliseconds / 1000).toFixed(2)} s`);
  $("title").replaceChildren(moments.length ? text : `No moments for ${text}`, ...(moments.length ? [small] : []));
  $("said").textContent = $("title").textContent;
  if (focusFirst) $("results").querySelector(".play")?.focus();
  focusFirst = false;
  $("more").hidden = moments.length < count || count >= MOST;
  $("strength").hidden = !moments.length;
}

function showVideos(answer) {
  videos = answer;
  $("results").replaceChildren(...answer.videos.map(videoCard));
  $("more").hidden = $("strength").hidden = true;
  showTotal();
}

/** How many videos the list has, and how many moments the collection has. */
function showTotal() {
  const { total } = videos;
  const some = total > videos.videos.length ? `  the first ${videos.videos.length}` : "";
  const all = collection && total === collection.videos ? `  ${collection.moments.toLocaleString("en")} moments` : "";
  const number = `${total.toLocaleString("en")} video${total === 1 ? "" : "s"}`;
  $("title").replaceChildren(...(total ? [number, make("small", "", all + some)] : []));
}

function momentCard(moment, strongest) {
  const bar = make("span", "bar");
  bar.append(make("i"));
  bar.firstChild.style.width = `${Math.max(2, (100 * moment.strength) / strongest)}%`;
  const strength = make("span", "strength");
  strength.append(bar, make("span", "", `strength ${moment.strength.toFixed(1)}`));
  const { video, start, end } = moment;
  const item = card(moment, span(moment), { video, start, end, whole: false }, [strength]);
  const actions = make("div", "actions");
  actions.append(
    action("Similar to this", () => like(moment)),
    action("Whole video", () => play({ video, start, end, whole: true })),
  );
  item.append(actions);
  return item;
}

function videoCard(video) {
  const whole = { ...video, start: 0, end: video.duration };
  return card(whole, clock(video.duration), { video: video.video, start: 0, end: 0, whole: true }, []);
}

/** A card whose button plays; the poster is one frame of the strip, chosen by the pointer. */
function card(moment, time, played, more) {
  const { video, start, end, version } = moment;
  const address = `/strip?${new URLSearchParams({ video, start, end, v: version })}`;
  const picture = () => Object.assign(make("img"), { alt: "", loading: "lazy", decoding: "async", src: address });
  const poster = make("span", "poster");
  const large = picture();
  poster.append(large, make("span", "time", time));
  poster.onpointermove = (event) => {
    large.style.transform = `translateX(${-25 * frameAt(event, poster)}%)`;
  };
  poster.onpointerleave = () => (large.style.transform = "");
  const about = make("span", "about");
  const name = make("span", "name", moment.name);
  name.title = video;
  about.append(name, make("span", "where", moment.folder), ...more);
  const button = make("button", "play");
  button.type = "button";
  const frames = picture();
  frames.className = "frames";
  button.append(poster, frames, about);
  button.onclick = () => play(played);
  const item = make("li", "card");
  item.append(button);
  return item;
}

function frameAt(event, poster) {
  const box = poster.getBoundingClientRect();
  return Math.min(3, Math.max(0, Math.floor((4 * (event.clientX - box.left)) / box.width)));
}

function action(text, call) {
  const button = make("button", "", text);
  button.type = "button";
  button.onclick = call;
  return button;
}

/** States without results. */
function showEmpty() {
  const box = $("empty");
  const { folder, min, max } = read();
  const failed = !$("problem").hidden || $("results").childElementCount > 0;
  box.hidden = failed;
  if (failed) return;
  if (collection && !collection.videos) {
    box.textContent = "This collection has no videos yet. Add some:";
    box.append(make("code", "", `mmpt index VIDEOS --collection ${collection.collection}`));
    $("title").replaceChildren();
  } else if (folder || min || max) {
    box.textContent = "No video fits this folder and length. ";
    box.append(action("Search all videos", () => go({ folder: "", min: "", max: "" })));
  } else box.hidden = true;
}

function showFilters({ folder, min, max }) {
  choose($("folder"), folder, folder);
  choose($("length"), min || max ? `${min}-${max}` : "", `${min || 0} to ${max || "any"} s`);
}

function choose(select, value, text) {
  if (![...select.options].some((option) => option.value === value)) select.add(new Option(text, value));
  select.value = value;
}

function showFolders(folders) {
  const options = folders.map(({ folder, videos }) => new Option(`${folder} (${videos})`, folder));
  $("folder").replaceChildren(new Option("all folders", ""), ...options);
  showFilters(read());
}

async function look() {
  try {
    const before = collection;
    collection = await ask("/api/status", {});
    $("indexing").hidden = !collection.indexing;
    if (JSON.stringify(before?.folders) !== JSON.stringify(collection.folders)) showFolders(collection.folders);
    const { q, like } = read();
    if (before && before.videos !== collection.videos && !q && !like) await find(readSearch());
    else showEmpty();
    if (!q && !like) showTotal();
  } catch {
    // The next search says what is wrong.
  }
  setTimeout(look, collection?.indexing ? 3000 : 15000);
}

function recent() {
  try {
    const kept = JSON.parse(localStorage.getItem("recent") ?? "[]");
    return Array.isArray(kept) ? kept.filter((one) => typeof one === "string") : [];
  } catch {
    return [];
  }
}

function remember(sentence) {
  const all = [sentence, ...recent().filter((one) => one !== sentence)].slice(0, RECENT);
  localStorage.setItem("recent", JSON.stringify(all));
}

function showRecent() {
  const all = recent().filter((sentence) => sentence !== read().q);
  const clear = action("clear", () => {
    localStorage.removeItem("recent");
    showRecent();
    $("q").focus();
  });
  clear.className = "clear";
  const chips = all.map((sentence) => action(sentence, () => go({ q: sentence, like: "", play: "", whole: "" })));
  $("recent").replaceChildren(make("span", "", "Recent"), ...chips, clear);
  $("recent").hidden = !all.length;
}

/** Play a moment; Back closes the player again. */
function play(moment) {
  const open = $("player").open;
  const changes = { play: written(moment), whole: moment.whole ? "1" : "" };
  go(changes, { replace: open, opened: open ? history.state?.opened : true });
}

/** The moment before or after the one that plays, in the order of the results. */
function neighbour(step) {
  const state = read();
  const place = moments.findIndex((moment) => written(moment) === state.play);
  return place >= 0 ? moments[place + step] : undefined;
}

function showNeighbours() {
  $("player-before").disabled = !neighbour(-1);
  $("player-after").disabled = !neighbour(1);
}

function step(number) {
  const moment = neighbour(number);
  if (moment) play({ video: moment.video, start: moment.start, end: moment.end, whole: false });
}

function like(moment) {
  focusFirst = true;
  go({ q: "", like: written(moment), play: "", whole: "" }, { replace: $("player").open });
  scrollTo(0, 0);
}

/** Close the player, and go back to the page that opened it. */
function leave() {
  if (!read().play || leaving) return;
  if (history.state?.opened) {
    leaving = [];
    history.back();
  } else go({ play: "", whole: "" }, { replace: true });
}

onPlayer({ play, similar: like });
$("player").addEventListener("close", leave);
$("player").addEventListener("click", (event) => event.target === $("player") && $("player").close());
$("player-close").onclick = () => $("player").close();
$("player-before").onclick = () => step(-1);
$("player-after").onclick = () => step(1);
$("search").onsubmit = (event) => {
  event.preventDefault();
  searched = null; // search again even for the same sentence
  go({ q: $("q").value.trim(), like: "", play: "", whole: "" });
};
$("home").onclick = (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go({ q: "", like: "", folder: "", min: "", max: "", play: "", whole: "" });
  $("q").focus();
};
$("folder").onchange = () => go({ folder: $("folder").value });
$("length").onchange = () => {
  const [min = "", max = ""] = $("length").value.split("-");
  go({ min, max });
};
$("more").onclick = () => {
  count = Math.min(MOST, count + STEP);
  find(readSearch());
};

/** The number of cards in the first row. */
function columns(cards) {
  const tops = cards.map((one) => one.getBoundingClientRect().top);
  const next = tops.findIndex((top) => top > tops[0] + 1);
  return next === -1 ? cards.length : next;
}

function move(key, cards, place) {
  const wide = columns(cards);
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: wide, ArrowUp: -wide }[key];
  if (place + step < 0) $("q").focus();
  else cards[Math.min(place + step, cards.length - 1)].focus();
}

addEventListener("keydown", (event) => {
  const { target, key } = event;
  const typing = target.closest?.("input, textarea, select");
  if ($("player").open && !typing && (key === "n" || key === "p")) step(key === "n" ? 1 : -1);
  if ($("player").open || event.ctrlKey || event.metaKey || event.altKey) return;
  const cards = [...$("results").querySelectorAll(".play")];
  const place = cards.indexOf(target.closest?.("li")?.querySelector(".play"));
  if (key === "/" && !typing) {
    $("q").focus();
    $("q").select();
  } else if (key === "ArrowDown" && target === $("q") && cards.length) cards[0].focus();
  else if (key.startsWith("Arrow") && place >= 0) move(key, cards, place);
  else if (key === "Escape" && place >= 0) $("q").focus();
  else return;
  event.preventDefault();
});

addEventListener("popstate", () => {
  const changes = leaving ?? [];
  leaving = null;
  show();
  for (const change of changes) go(change);
});
show();
look();
if (!read().q && !read().play && matchMedia("(hover: hover)").matches) $("q").focus();
