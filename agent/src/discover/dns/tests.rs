//! Names against a name server of this process: real datagrams, answers that the test changes.

mod course;

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
};

use hickory_resolver::proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{RData, Record, RecordType, rdata},
    serialize::binary::{BinDecodable as _, BinEncodable as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
    time::timeout,
};

use super::*;

/// What the server says of every name.
#[derive(Clone, Debug)]
enum Say {
    /// (addresses, TTL in seconds)
    Addresses(Vec<IpAddr>, u32),
    Code(ResponseCode),
    /// These addresses, and nothing to questions of the other family.
    HalfSilent(Vec<IpAddr>),
    /// These addresses, and FORMERR to questions with EDNS.
    WithoutEdns(Vec<IpAddr>),
    /// A code for the questions of the family that these addresses are not of.
    HalfBroken(ResponseCode, Vec<IpAddr>),
    Nothing,
}

/// Answers on one port over UDP and TCP. More than 20 addresses do not go into a datagram.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    say: Arc<Mutex<Say>>,
    over_tcp: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Over {
    Udp,
    Tcp,
}

impl Server {
    async fn start(say: Say) -> Self {
        // A port that is free for one protocol may be another test's for the other.
        let (udp, tcp, address) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = udp.local_addr().unwrap();
            match TcpListener::bind(address).await {
                Ok(tcp) => break (udp, tcp, address),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse),
            }
        };
        let server = Self {
            address,
            say: Arc::new(Mutex::new(say)),
            over_tcp: Arc::default(),
        };
        let this = server.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            loop {
                let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
                if let Some(answer) = this.answer(&buffer[..length], Over::Udp) {
                    udp.send_to(&answer, from).await.unwrap();
                }
            }
        });
        let this = server.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let this = this.clone();
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut question = vec![0; length.into()];
                        stream.read_exact(&mut question).await.unwrap();
                        let Some(answer) = this.answer(&question, Over::Tcp) else {
                            return;
                        };
                        this.over_tcp.fetch_add(1, Ordering::Relaxed);
                        stream.write_u16(answer.len().try_into().unwrap()).await.unwrap();
                        stream.write_all(&answer).await.unwrap();
                    }
                });
            }
        });
        server
    }

    fn say(&self, say: Say) {
        *self.say.lock().unwrap() = say;
    }

    fn answer(&self, question: &[u8], over: Over) -> Option<Vec<u8>> {
        let question = Message::from_bytes(question).unwrap();
        let query = question.queries[0].clone();
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        assert_eq!(answer.metadata.message_type, MessageType::Response);
        answer.metadata.recursion_desired = true;
        answer.metadata.recursion_available = true;
        let v6 = query.query_type() == RecordType::AAAA;
        let (addresses, ttl) = match self.say.lock().unwrap().clone() {
            Say::Nothing => return None,
            Say::Addresses(addresses, ttl) => (addresses, ttl),
            Say::HalfBroken(code, addresses) if addresses[0].is_ipv6() != v6 => {
                answer.metadata.response_code = code;
                (vec![], 0)
            }
            Say::HalfBroken(_, addresses) => (addresses, 0),
            Say::HalfSilent(addresses) if addresses[0].is_ipv6() != v6 => return None,
            Say::HalfSilent(addresses) => (addresses, 0),
            Say::WithoutEdns(_) if question.edns.is_some() => {
                answer.metadata.response_code = ResponseCode::FormErr;
                (vec![], 0)
            }
            Say::WithoutEdns(addresses) => (addresses, 0),
            Say::Code(code) => {
                answer.metadata.response_code = code;
                (vec![], 0)
            }
        };
        for ip in addresses.iter().filter(|ip| ip.is_ipv6() == v6) {
            let data = match ip {
                IpAddr::V4(ip) => RData::A(rdata::A(*ip)),
                IpAddr::V6(ip) => RData::AAAA(rdata::AAAA(*ip)),
            };
            answer
                .answers
                .push(Record::from_rdata(query.name().clone(), ttl, data));
        }
        answer.queries.push(query);
        if over == Over::Udp && answer.answers.len() > 20 {
            answer.answers.clear();
            answer.metadata.truncation = true;
        }
        Some(answer.to_bytes().unwrap())
    }
}

fn ips(last: &[u8]) -> Vec<IpAddr> {
    last.iter()
        .map(|last| Ipv4Addr::new(10, 0, 0, *last).into())
        .collect()
}

/// A TTL of 0 is asked again after 100 ms here.
fn question() -> Question {
    Question {
        name: "db.example".into(),
        ttl: TtlBounds {
            min: Duration::from_millis(100),
            max: Duration::from_secs(300),
        },
    }
}

fn asking(server: &Server) -> Names {
    let mut names = Names::new(Servers::Given(vec![server.address]));
    names.follow([question()]);
    names
}

async fn news(names: &mut Names) -> Option<Vec<IpAddr>> {
    let news = timeout(Duration::from_secs(20), names.next())
        .await
        .expect("news in time");
    assert_eq!(news.question, question());
    news.addresses
}

/// Waits until the newest lookup has failed so, or with `None` has been answered.
async fn until(names: &Names, failure: Option<&DnsFailure>) -> NameState {
    let board = names.board();
    let look = async {
        loop {
            if let Some((_, state)) = board.all().pop()
                && state.failure.as_ref() == failure
            {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), look)
        .await
        .expect("the result in time")
}

#[tokio::test]
async fn a_change_is_seen_when_the_ttl_ends() {
    let server = Server::start(Say::Addresses(ips(&[2, 1]), 1)).await;
    let mut names = asking(&server);
    assert_eq!(news(&mut names).await, Some(ips(&[2, 1])));
    let answered = tokio::time::Instant::now();
    server.say(Say::Addresses(ips(&[3]), 0));
    assert_eq!(news(&mut names).await, Some(ips(&[3])));
    let waited = answered.elapsed();
    assert!(
        waited >= Duration::from_millis(900) && waited < Duration::from_secs(3),
        "{waited:?}"
    );
}

#[tokio::test]
async fn a_failure_keeps_the_last_good_answer() {
    let server = Server::start(Say::Addresses(ips(&[1]), 0)).await;
    let mut names = asking(&server);
    assert_eq!(news(&mut names).await, Some(ips(&[1])));
    for (say, failure) in [
        (Say::Code(ResponseCode::NXDomain), DnsFailure::NoSuchName),
        (Say::Addresses(vec![], 0), DnsFailure::NoAddress),
        (
            Say::Addresses(vec![Ipv4Addr::UNSPECIFIED.into()], 0),
            DnsFailure::NoAddress,
        ),
        (
            Say::Code(ResponseCode::ServFail),
            DnsFailure::Refused(ResponseCode::ServFail.to_string()),
        ),
    ] {
        server.say(say.clone());
        let state = until(&names, Some(&failure)).await;
        assert_eq!(state.addresses, ips(&[1]), "{say:?}");
        server.say(Say::Addresses(ips(&[1]), 0));
        until(&names, None).await;
    }
    // Nothing of this was news.
    server.say(Say::Addresses(ips(&[9]), 0));
    assert_eq!(news(&mut names).await, Some(ips(&[9])));
    let counted: Vec<_> = names
        .board()
        .lookups()
        .into_iter()
        .map(|(result, _)| result)
        .collect();
    assert_eq!(counted, ["answered", "no_address", "nxdomain", "refused"]);
}

#[tokio::test]
async fn a_first_failure_is_news_and_is_tried_again() {
    let server = Server::start(Say::Code(ResponseCode::NXDomain)).await;
    let mut names = asking(&server);
    assert_eq!(news(&mut names).await, None);
    server.say(Say::Addresses(ips(&[4]), 60));
    assert_eq!(news(&mut names).await, Some(ips(&[4])));
}

#[tokio::test]
async fn both_families_and_answers_beyond_a_datagram_are_whole() {
    let v6 = IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
    let many: Vec<IpAddr> = ips(&(1..=200).collect::<Vec<u8>>());
    let server = Server::start(Say::Addresses([vec![v6], many.clone()].concat(), 60)).await;
    let mut names = asking(&server);
    assert_eq!(news(&mut names).await, Some([many, vec![v6]].concat()));
    assert!(server.over_tcp.load(Ordering::Relaxed) >= 1);
}

#[tokio::test]
async fn a_family_that_is_refused_for_good_costs_the_other_nothing() {
    let server = Server::start(Say::HalfBroken(ResponseCode::Refused, ips(&[7]))).await;
    let mut names = asking(&server);
    assert_eq!(news(&mut names).await, Some(ips(&[7])));
}

#[tokio::test]
async fn a_family_that_is_not_answered_any_more_keeps_what_it_had() {
    let v6 = IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
    let server = Server::start(Say::Addresses([ips(&[1]), vec![v6]].concat(), 0)).await;
    let mut names = asking(&server);
    assert_eq!(news(&mut names).await, Some([ips(&[1]), vec![v6]].concat()));
    // The other one changes meanwhile.
    server.say(Say::HalfSilent(ips(&[2])));
    assert_eq!(news(&mut names).await, Some([ips(&[2]), vec![v6]].concat()));
    let state = until(&names, Some(&DnsFailure::Timeout)).await;
    assert_eq!(state.addresses, [ips(&[2]), vec![v6]].concat());
    server.say(Say::HalfBroken(ResponseCode::ServFail, vec![v6]));
    let servfail = DnsFailure::Refused(ResponseCode::ServFail.to_string());
    assert_eq!(
        until(&names, Some(&servfail)).await.addresses,
        [ips(&[2]), vec![v6]].concat()
    );
    // That a family has no address is an answer.
    server.say(Say::Addresses(vec![v6], 0));
    assert_eq!(news(&mut names).await, Some(vec![v6]));
}

#[tokio::test]
async fn a_server_that_knows_no_edns_is_asked_without() {
    let server = Server::start(Say::WithoutEdns(ips(&[1]))).await;
    let mut names = asking(&server);
    assert_eq!(news(&mut names).await, Some(ips(&[1])));
}

#[tokio::test]
async fn a_name_that_nobody_wants_is_not_asked() {
    let server = Server::start(Say::Addresses(ips(&[1]), 0)).await;
    let mut names = asking(&server);
    assert_eq!(news(&mut names).await, Some(ips(&[1])));
    names.follow([]);
    assert_eq!(names.board().all(), []);
    server.say(Say::Addresses(ips(&[2]), 0));
    timeout(Duration::from_millis(300), names.next())
        .await
        .expect_err("nothing is asked");
}

#[tokio::test]
async fn servers_that_do_not_answer_are_a_failure() {
    let server = Server::start(Say::Nothing).await;
    let mut names = asking(&server);
    assert_eq!(news(&mut names).await, None);
    assert_eq!(names.board().all()[0].1.failure, Some(DnsFailure::Timeout));
}

const BOUNDS: TtlBounds = TtlBounds {
    min: Duration::from_secs(1),
    max: Duration::from_secs(300),
};
