"use strict";
const root = document.documentElement;
const store = {
  get: () => { try { return localStorage.getItem("sqakd-theme"); } catch { return null; } },
  set: (theme) => { try { localStorage.setItem("sqakd-theme", theme); } catch { /* a page from disk may not */ } },
};

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function labelTheme() {
  document.getElementById("theme").textContent = isDark() ? "Light" : "Dark";
}

if (store.get()) root.dataset.theme = store.get();
labelTheme();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", labelTheme);
document.getElementById("theme").addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  store.set(root.dataset.theme);
  labelTheme();
});

async function copy(words, button) {
  let done = true;
  try {
    await navigator.clipboard.writeText(words);
  } catch {
    const box = document.createElement("textarea");
    box.value = words;
    document.body.append(box);
    box.select();
    done = document.execCommand("copy");
    box.remove();
  }
  const before = button.dataset.label ??= button.textContent;
  button.textContent = done ? "Copied" : "Not allowed";
  setTimeout(() => { button.textContent = before; }, 1500);
}

const rows = [...document.querySelectorAll(".runs tbody tr")];
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.matches(".copy")) copy(button.parentElement.querySelector("code").textContent, button);
  if (button?.id === "copy-all") {
    const commands = rows.filter((row) => !row.hidden).map((row) => row.querySelector("td code").textContent);
    copy(commands.join("\n"), button);
  }
});

const filter = document.getElementById("filter");
if (filter) {
  const texts = rows.map((row) => `${row.parentElement.dataset.words} ${row.textContent}`.toLowerCase());
  const show = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row, i) => { row.hidden = !words.every((word) => texts[i].includes(word)); });
    document.getElementById("shown").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} runs`;
  };
  filter.addEventListener("input", show);
  addEventListener("hashchange", () => {
    if (location.hash.startsWith("#runs-")) { filter.value = ""; show(); }
  });
  show();
}
