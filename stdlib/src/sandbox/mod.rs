//! The built-in environment: real servers on loopback, inside the process.
