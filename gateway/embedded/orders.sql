-- The sample database of `make run`, the stack and the tests: a table worth reading, and the group that may read it.
CREATE ROLE readers NOLOGIN;
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer text NOT NULL,
    item text NOT NULL,
    cents integer NOT NULL CHECK (cents >= 0),
    status text NOT NULL DEFAULT 'new' CHECK (status IN ('new', 'paid', 'sent', 'stuck')),
    placed_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO orders (customer, item, cents, status) VALUES
    ('Ada', 'lamp', 4900, 'paid'),
    ('Grace', 'desk', 25900, 'sent'),
    ('Linus', 'chair', 8900, 'stuck'),
    ('Barbara', 'shelf', 12900, 'new');
REVOKE ALL ON DATABASE orders FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT CONNECT ON DATABASE orders TO readers;
GRANT USAGE ON SCHEMA public TO readers;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO readers;
