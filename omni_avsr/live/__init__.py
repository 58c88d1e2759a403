"""A camera and a microphone in; captions that grow while somebody speaks, out."""
