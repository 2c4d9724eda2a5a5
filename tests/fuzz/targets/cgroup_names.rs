#![no_main]

derny_fuzz::target!();
