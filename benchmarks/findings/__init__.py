"""The papers' findings in miniature: what is trained, how it is measured, and the page that is made of it."""
