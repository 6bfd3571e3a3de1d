CREATE TABLE invoices (
    id          INTEGER PRIMARY KEY,
    order_id    INTEGER NOT NULL UNIQUE REFERENCES orders (id),
    total_cents INTEGER NOT NULL
);
INSERT INTO invoices (order_id, total_cents) SELECT id, total_cents FROM orders WHERE status = 'paid';
