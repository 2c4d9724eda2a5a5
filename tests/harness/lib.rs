//! A node, its pods, clients and services on one machine.
