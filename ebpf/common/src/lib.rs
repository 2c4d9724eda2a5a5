//! What the kernel programs and the agent both know.
#![no_std]
