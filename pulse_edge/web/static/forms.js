// Small conveniences of the question box and of the reader's form.

export function prepareForms(root) {
  for (const form of root.querySelectorAll("form[data-ask]")) {
    const question = form.querySelector("textarea");
    question.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
  }
  for (const form of root.querySelectorAll("form[data-confirm]")) {
    form.addEventListener("input", () => (form.dataset.dirty = "1"));
    for (const text of form.querySelectorAll("[data-edits]")) {
      text.addEventListener("input", () => {
        form.querySelector(`[name="${text.dataset.edits}"][value="changed"]`).checked = true;
      });
    }
    // A reading that is rejected as a whole needs no decision on each finding.
    const overall = form.querySelector('[name="overall"]');
    const decisions = [...form.querySelectorAll('.decision input[required]')];
    overall.addEventListener("change", () => {
      for (const input of decisions) input.required = !overall.checked;
    });
  }
}
