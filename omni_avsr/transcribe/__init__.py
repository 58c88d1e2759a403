"""A file or arrays in; segments, words and subtitles out."""
