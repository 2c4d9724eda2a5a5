//! How relayed connections end: as their other side ended, whatever they carry, whoever opened them.

use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    thread,
    time::Duration,
};

use derny_tests::{World, upstream::TCP_PORT};
use nix::sys::signal::Signal;

use crate::relayed::{
    KINDS, SOON, Site, Way, begin, breaks, each, end, flags, last_flag, listen, reset, went_well,
};

#[test]
fn a_callers_reset_is_a_reset_at_the_endpoint() {
    each(|site, way, kind| {
        let before = flags(site, kind.protocol).len();
        let server = site.serve(kind.port, |mut stream| end(&mut stream));
        went_well(site.talk(way, kind, &["reset"]));
        assert_eq!(server.join().unwrap(), "reset", "{way:?} {kind:?}");
        assert_eq!(last_flag(site, kind, before), "DC", "{way:?} {kind:?}");
    });
}

#[test]
fn an_endpoints_reset_is_a_reset_at_the_caller() {
    each(|site, way, kind| {
        let before = flags(site, kind.protocol).len();
        let server = site.serve(kind.port, |mut stream| {
            stream.read_exact(&mut [0; 3]).unwrap();
            // What was said before it arrives.
            stream.write_all(b"last words").unwrap();
            reset(stream);
        });
        let steps = ["send:now", "expect:last words", "broken"];
        went_well(site.talk(way, kind, &steps));
        server.join().unwrap();
        assert_eq!(last_flag(site, kind, before), "UC", "{way:?} {kind:?}");
    });
}

#[test]
fn a_fin_is_a_fin_and_the_other_direction_goes_on() {
    each(|site, way, kind| {
        let before = flags(site, kind.protocol).len();
        let server = site.serve(kind.port, |mut stream| {
            let ended = end(&mut stream);
            stream.write_all(b"still here").unwrap();
            ended
        });
        went_well(site.talk(way, kind, &["shut", "expect:still here", "end"]));
        assert_eq!(server.join().unwrap(), "fin", "{way:?} {kind:?}");
        assert_eq!(last_flag(site, kind, before), "-", "{way:?} {kind:?}");

        let server = site.serve(kind.port, |mut stream| {
            stream.shutdown(Shutdown::Write).unwrap();
            stream.read_exact(&mut [0; 10]).unwrap();
            end(&mut stream)
        });
        went_well(site.talk(way, kind, &["end", "send:still here", "shut"]));
        assert_eq!(server.join().unwrap(), "fin", "{way:?} {kind:?}");
        assert_eq!(last_flag(site, kind, before + 1), "-", "{way:?} {kind:?}");
    });
}

#[test]
fn a_reset_after_a_fin_is_passed_on_though_nobody_reads() {
    each(|site, way, kind| {
        let server = site.serve(kind.port, |mut stream| {
            assert_eq!(end(&mut stream), "fin");
            stream.write_all(b"heard").unwrap();
            breaks(&stream)
        });
        went_well(site.talk(way, kind, &["shut", "expect:heard", "reset"]));
        assert_eq!(server.join().unwrap(), "reset", "{way:?} {kind:?}");

        let server = site.serve(kind.port, |stream| {
            stream.shutdown(Shutdown::Write).unwrap();
            (&stream).read_exact(&mut [0; 5]).unwrap();
            reset(stream);
        });
        // Its read direction has ended; what it writes then tells.
        let steps = ["end", "send:heard", "refused"];
        went_well(site.talk(way, kind, &steps));
        server.join().unwrap();
    });
}

#[test]
fn a_reset_is_passed_on_while_the_other_side_takes_nothing() {
    let site = Site::new(|_| {});
    for kind in [KINDS[0], KINDS[3]] {
        let (filled, is_filled) = std::sync::mpsc::channel();
        let server = site.serve(kind.port, move |stream| {
            stream.set_nonblocking(true).unwrap();
            // Until nobody on the way has room.
            let mut full = derny_tests::observe::now();
            while full.elapsed() < Duration::from_millis(500) {
                match (&stream).write(&[7; 65_536]) {
                    Ok(count) if count > 0 => full = derny_tests::observe::now(),
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            filled.send(()).unwrap();
            breaks(&stream)
        });
        let mut talk = site.talk(Way::Outbound, kind, &["hold", "reset"]);
        is_filled.recv_timeout(SOON).unwrap();
        drop(talk.child().stdin.take());
        talk.wait(SOON).unwrap();
        assert_eq!(server.join().unwrap(), "reset", "{kind:?}");
    }
}

#[test]
fn a_connection_for_which_there_is_no_endpoint_is_reset() {
    let site = Site::new(|_| {});
    // Nobody listens.
    for kind in KINDS.iter().filter(|kind| kind.protocol == "tcp") {
        for target in [
            site.world.vip(kind.service).unwrap().address(),
            site.world.vip(kind.service).unwrap().address6(),
        ] {
            went_well(begin(&site.world.client, target, &["broken"]));
        }
    }
    for target in [
        site.world.servers[0].pod.address(TCP_PORT),
        site.world.servers[0].pod.address6(TCP_PORT),
    ] {
        went_well(begin(&site.stranger, target, &["broken"]));
    }
}

#[test]
fn a_caller_that_ends_without_a_word_hears_what_the_server_says() {
    let site = Site::new(|_| {});
    for service in ["tcp", "any-tcp", "tls"] {
        let kind = KINDS.into_iter().find(|kind| kind.service == service).unwrap();
        let listener = listen(&site.world.servers[0].pod, kind.port);
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert_eq!(end(&mut stream), "fin");
            stream.write_all(b"a file").unwrap();
        });
        let target = site.world.vip(service).unwrap().address();
        went_well(begin(
            &site.world.client,
            target,
            &["shut", "expect:a file", "end"],
        ));
        server.join().unwrap();
    }
}

/// What was cut off was not complete, and must not look like it.
fn cut_off_by(cut: impl Fn(&mut World), flag: Option<&str>) {
    let outbound = KINDS.map(|kind| (Way::Outbound, kind));
    let inbound = [KINDS[0], KINDS[3]].map(|kind| (Way::Inbound, kind));
    for (way, kind) in outbound.into_iter().chain(inbound) {
        let mut site = Site::new(|options| {
            options.arguments = ["--drain-timeout", "1s"].map(str::to_owned).into();
        });
        let server = site.serve(kind.port, |mut stream| end(&mut stream));
        let mut talk = site.talk(way, kind, &["broken"]);
        let open = |n: f64| n >= 1.0;
        let relayed = site.world.agent.metric("derny_tcp_sent_bytes_total", &[], open);
        assert!(relayed.is_ok(), "{way:?} {kind:?}: {relayed:?}");
        cut(&mut site.world);
        assert!(talk.wait(SOON).unwrap().success(), "{way:?} {kind:?}");
        assert_eq!(server.join().unwrap(), "reset", "{way:?} {kind:?}");
        if let Some(flag) = flag {
            assert_eq!(last_flag(&site, kind, 0), flag, "{way:?} {kind:?}");
        }
    }
}

#[test]
fn what_is_cut_off_by_a_withdrawal_is_reset() {
    cut_off_by(
        |world| {
            let mut config = world.config();
            config.pods.clear();
            world.reload(config).unwrap();
        },
        Some("LR"),
    );
}

#[test]
fn what_is_cut_off_by_the_end_of_the_agent_is_reset() {
    cut_off_by(
        |world| {
            world.agent.signal(Signal::SIGTERM).unwrap();
            world.agent.ended(SOON).unwrap();
        },
        Some("LR"),
    );
    cut_off_by(|world| world.agent.kill9().unwrap(), None);
}
