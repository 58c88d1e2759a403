"""The model behind HTTP and behind a page: one worker owns it, everybody's utterances share its batches."""
