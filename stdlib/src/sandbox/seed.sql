CREATE TABLE customers (
    id    INTEGER PRIMARY KEY,
    name  TEXT NOT NULL,
    email TEXT NOT NULL UNIQUE
);
CREATE TABLE orders (
    id          INTEGER PRIMARY KEY,
    customer_id INTEGER NOT NULL REFERENCES customers (id),
    total_cents INTEGER NOT NULL,
    status      TEXT NOT NULL DEFAULT 'open'
);
INSERT INTO customers (id, name, email) VALUES
    (1, 'Ada',   'ada@example.com'),
    (2, 'Grace', 'grace@example.com'),
    (3, 'Linus', 'linus@example.com');
INSERT INTO orders (id, customer_id, total_cents, status) VALUES
    (1, 1,  1999, 'paid'),
    (2, 1,   500, 'open'),
    (3, 2, 12000, 'paid'),
    (4, 3,    99, 'open');
