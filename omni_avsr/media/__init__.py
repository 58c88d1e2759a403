"""From files to tensors: reader, face, mouth, speech, features. This room knows no model."""
