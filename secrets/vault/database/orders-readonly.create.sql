-- One session's own role.  What it may do is what the group `readers` may. The rest makes accidents harder.
-- (Vault splits this file at every semicolon, comments included.)
-- default_transaction_read_only is a default, not a boundary (the person can set it): the boundary is the group's SELECT.
CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' CONNECTION LIMIT 20
    NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION IN ROLE readers;
ALTER ROLE "{{name}}" SET default_transaction_read_only = on;
ALTER ROLE "{{name}}" SET idle_in_transaction_session_timeout = '5min';
