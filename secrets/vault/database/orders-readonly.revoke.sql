-- Ends the role and every connection it has open (PostgreSQL 14 or newer).  Can be run again after any failure.
-- Order matters: no new login first, and committed, else one could slip in between the ending of the sessions and the drop.
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{{name}}') THEN
        ALTER ROLE "{{name}}" NOLOGIN;
    END IF;
END $$;
COMMIT;
-- Waits up to 5 s for each to be gone, so that "revoked" means ended.
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{{name}}';
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{{name}}') THEN
        GRANT "{{name}}" TO CURRENT_USER;
        REASSIGN OWNED BY "{{name}}" TO CURRENT_USER;
        DROP OWNED BY "{{name}}";
        DROP ROLE "{{name}}";
    END IF;
END $$;
