// A dry run while it goes on: its progress, and its report when it is over. Without this the page is loaded again.

import { count } from "./format.js";

const LOOK_MS = 700;
const run = document.querySelector("[data-run]");

async function look() {
  const answer = await fetch(`/v1/jobs/${run.dataset.run}`).catch(() => null);
  if (!answer?.ok) return true; // a platform that restarts goes on with it
  const job = await answer.json();
  const bar = run.querySelector("progress");
  bar.max = Math.max(1, job.total ?? 1);
  bar.value = job.done;
  run.querySelector("[data-said]").textContent = `${count(job.done)} of ${job.total === null ? "?" : count(job.total)} readings`;
  return job.state === "queued" || job.state === "running";
}

async function follow() {
  while (await look()) await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  location.reload();
}

if (run) follow();
