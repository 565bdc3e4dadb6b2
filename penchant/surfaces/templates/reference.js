"use strict";
// Sends the request of a form and shows the answer. A job is followed to its end.
async function send(form) {
  const shown = form.querySelector(".answer");
  const name = form.dataset.operation;
  const text = form.querySelector("textarea").value;
  shown.hidden = false;
  shown.textContent = "...";
  const files = [...form.querySelectorAll("input[type=file]")].flatMap(
    (input) => [...input.files].map((file) => [input.name, file]));
  let options = { method: "POST", headers: { "Content-Type": "application/json" }, body: text };
  if (files.length) {
    const parts = new FormData();
    parts.append("request", new Blob([text], { type: "application/json" }));
    for (const [field, file] of files) parts.append(field, file, file.name);
    options = { method: "POST", body: parts };
  }
  try {
    const key = document.getElementById("key").value.trim();
    if (key) options.headers = { ...options.headers, Authorization: "Bearer " + key };
    let answer = await fetch("/v1/" + name, options);
    let status = answer.status;
    let body = await read(answer);
    while (status === 202 && ["queued", "running"].includes(body.state)) {
      shown.textContent = JSON.stringify(body, null, 2);
      await new Promise((done) => setTimeout(done, 500));
      body = await read(await fetch("/v1/jobs/" + body.id, key ? { headers: options.headers } : {}));
    }
    shown.textContent = status + "\n" + (typeof body === "string" ? body : JSON.stringify(body, null, 2));
  } catch (error) {
    shown.textContent = "no answer: " + error.message;
  }
}

async function read(answer) {
  const made = answer.headers.get("Penchant-Response");
  if (made) return JSON.parse(made);
  const text = await answer.text();
  try { return JSON.parse(text); } catch { return text; }
}

// The samples call the server this page came from, whatever its port or name.
for (const sample of document.querySelectorAll("pre.curl")) {
  sample.textContent = sample.textContent.replace("http://127.0.0.1:8000", location.origin);
}
for (const form of document.querySelectorAll("form[data-operation]")) {
  form.addEventListener("submit", (event) => { event.preventDefault(); send(form); });
}
