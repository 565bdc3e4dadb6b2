(() => {
  const d = document, own = d.currentScript, set = own.dataset, memory = {};
  let queue = [], timer, wait = 1e3;
  const keep = (name, value, where = "localStorage") => {  // without a value it reads
    let store = memory;
    try { store = window[where]; } catch {}
    if (value != null) store["penchant." + name] = value;
    return store["penchant." + name];
  };
  const source = (item, value) => keep("r." + item, value, "sessionStorage");  // which answer it was clicked in
  const id = () => crypto.getRandomValues(new Uint32Array(4)).join("-");
  const on = (what, act) => d.addEventListener(what, act);
  const may = () => !navigator.globalPrivacyControl && (keep("consent") || set.consent) == "yes";
  const forget = () => (keep("id", ""), keep("user", ""));
  const later = () => timer ||= setTimeout(flush, wait);
  const call = (type, event, properties) => {
    if (!may()) return;
    queue.push({
      type, event, properties, messageId: id(), timestamp: new Date(), anonymousId: keep("id") || keep("id", id()),
      userId: keep("user"), context: { consent: { categoryPreferences: { analytics: true, personalise: true } } },
    });
    later();
  };
  const flush = () => {
    timer = clearTimeout(timer);
    const batch = queue.splice(0, 50);
    if (batch[0]) fetch(new URL("/v1/batch", own.src), {
      method: "POST", keepalive: true, body: JSON.stringify({ batch, sentAt: new Date() }),
      headers: { Authorization: "Basic " + btoa(set.key + ":") },
    }).then(r => {
      if (r.status > 428) throw r;  // too many at once, or the server's own trouble
      wait = 1e3;
      if (queue[0]) later();
    }).catch(() => {  // nothing is lost while the page is open
      if (may()) queue = [...batch, ...queue].slice(0, 200);
      wait = Math.min(wait * 2, 6e4);
      later();
    });
  };
  const track = (event, properties) => call("track", event, properties);
  const list = e => e.closest("[data-penchant=list]");
  const about = ({ dataset: { item, price, currency } }) =>
    ({ product_id: item, price, currency, recommendation_id: source(item) });
  const place = e => [...list(e).querySelectorAll("[data-item]")].indexOf(e);
  const watch = new IntersectionObserver(entries => entries.forEach(({ isIntersecting, target }) => {
    if (!isIntersecting) return;
    watch.unobserve(target);
    track("Product List Viewed", { recommendation_id: list(target).dataset.recommendation,
      products: [{ product_id: target.dataset.item, position: place(target) }] });
  }), { threshold: .5 });
  const scan = () => may() && d.querySelectorAll("[data-penchant=view],[data-penchant=list] [data-item]").forEach(e => {
    if (e.penchant) return;
    e.penchant = true;
    list(e) ? watch.observe(e) : track("Product Viewed", about(e));
  });
  on("click", ({ target }) => {
    const cart = target.closest("[data-penchant=cart]"), item = target.closest("[data-item]");
    if (cart) track("Product Added", about(cart));
    else if (item && list(item) && may()) {
      source(item.dataset.item, list(item).dataset.recommendation || "");
      track("Product Clicked", { ...about(item), position: place(item) });
    }
  });
  on("submit", ({ target }) => target.matches("[data-penchant=search]") &&
    track("Products Searched", { query: [...new FormData(target).values()][0] }));
  on("visibilitychange", () => d.hidden && flush());
  new MutationObserver(scan).observe(d, { childList: true, subtree: true });
  const api = {
    track,
    identify: user => (keep("user", user), call("identify")),
    reset: () => (flush(), forget()),
    consent: given => {
      keep("consent", given ? "yes" : "no");
      given ? scan() : (queue = [], forget());
    },
    push: ([name, ...rest]) => api[name](...rest),
  };
  (window.penchant || []).forEach(api.push);
  window.penchant = api;
  scan();
})();
