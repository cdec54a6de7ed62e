"""`make demo`: the story of one session as a narrated run with the real `ssh`, each step checked and timed."""
