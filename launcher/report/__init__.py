"""`launcher report`: one HTML page that shows how a run, or several side by side, have gone; it needs no network."""
