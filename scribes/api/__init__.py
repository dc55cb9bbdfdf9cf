"""What all endpoints share: errors, pages, strict JSON, and the API in a browser."""
