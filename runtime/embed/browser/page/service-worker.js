// Keeps the page for use without a network, and adds the headers that WebAssembly threads need.
const CACHE = "asr-browser-demo-VERSION";
const FILES = ["FILES"];
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

/** Stores the files that are missing, those of `engine` among them: the others of an engine are large. */
async function store(engine) {
  const cache = await caches.open(CACHE);
  const stored = new Set((await cache.keys()).map(request => request.url));
  const missing = [...FILES.page, ...FILES[engine]]
    .map(name => new Request(new URL(name, self.location), { cache: "no-cache" })) // never what a server had before
    .filter(request => !stored.has(request.url));
  await cache.addAll(missing);
}

// At the first visit nothing is stored yet: the page asks for that when it has computed what it was given.
self.addEventListener("install", event => {
  self.skipWaiting();
  event.waitUntil(earlierCaches().then(names => names.length ? store("wasm") : null));
});

self.addEventListener("activate", event => {
  event.waitUntil((async () => {
    for (const name of await earlierCaches()) await caches.delete(name);
    await self.clients.claim();
  })());
});

async function earlierCaches() {
  return (await caches.keys()).filter(name => name.startsWith("asr-browser-demo-") && name !== CACHE);
}

self.addEventListener("message", event => {
  event.waitUntil(store(event.data.store).then(() => event.source.postMessage("stored")));
});

/** The page and its workers need the headers; other files pass untouched, so that a browser keeps what it compiled. */
async function answer(request) {
  const cache = await caches.open(CACHE);
  const response = await cache.match(request, { ignoreSearch: true }) ?? await fetch(request);
  if (request.mode !== "navigate" && request.destination !== "worker") return response;
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}

self.addEventListener("fetch", event => {
  const url = new URL(event.request.url);
  if (event.request.method === "GET" && url.origin === self.location.origin) event.respondWith(answer(event.request));
});
