"""An answer that broke off, taken up by another executor so that its caller notices nothing: pure, bytes in, bytes out."""
