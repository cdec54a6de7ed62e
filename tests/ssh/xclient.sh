# The least X client there is: it introduces itself with the cookie of its authority file, and reads one line.
exec 3<>"/dev/tcp/localhost/$((6000 + $(echo "$DISPLAY" | sed 's/.*:\([0-9]*\).*/\1/')))"
{ printf 'l\0\013\0\0\0\022\0\020\0\0\0MIT-MAGIC-COOKIE-1\0\0'
  if [ -n "$WRONG" ]; then printf '0123456789abcdef'; else tail -c 16 "${XAUTHORITY:-$HOME/.Xauthority}"; fi; } >&3
head -n 1 <&3
