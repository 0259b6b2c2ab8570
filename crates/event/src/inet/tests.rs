use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

#[test]
fn reads_addresses_as_inet_does() {
    assert_eq!(Inet::parse("192.168.1.5"), Some(Inet::V4([192, 168, 1, 5], 32)));
    assert_eq!(Inet::parse("192.168.1.5/24"), Some(Inet::V4([192, 168, 1, 5], 24)));
    assert_eq!(Inet::parse("0.0.0.0/0"), Some(Inet::V4([0; 4], 0)));
    let mut loopback = [0; 16];
    loopback[15] = 1;
    assert_eq!(Inet::parse("::1"), Some(Inet::V6(loopback, 128)));
    assert_eq!(Inet::parse("::1/64"), Some(Inet::V6(loopback, 64)));
    assert!(matches!(Inet::parse("::ffff:1.2.3.4"), Some(Inet::V6(_, 128))));
}

#[test]
fn refuses_what_is_no_address() {
    for text in [
        "",
        "/",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.3.4/",
        "1.2.3.4/33",
        "1.2.3.4/+8",
        "1.2.3.4/8/8",
        "::1/129",
        "::1/256",
        " 1.2.3.4",
        "fe80::1%eth0",
        "localhost",
        "1.2.3.4:80",
    ] {
        assert_eq!(Inet::parse(text), None, "{text:?}");
    }
}

proptest! {
    #[test]
    fn writes_what_it_reads(v4: [u8; 4], v6: [u8; 16], bits4 in 0_u8..=32, bits6 in 0_u8..=128) {
        for inet in [Inet::V4(v4, bits4), Inet::V6(v6, bits6)] {
            prop_assert_eq!(Inet::parse(&inet.to_string()), Some(inet));
        }
    }

    #[test]
    fn writes_addresses_as_the_standard_library_does(v4: [u8; 4], v6: [u8; 16]) {
        prop_assert_eq!(Inet::V4(v4, 32).to_string(), Ipv4Addr::from(v4).to_string());
        prop_assert_eq!(Inet::V4(v4, 8).to_string(), format!("{}/8", Ipv4Addr::from(v4)));
        prop_assert_eq!(Inet::V6(v6, 128).to_string(), Ipv6Addr::from(v6).to_string());
    }

    #[test]
    fn reads_stored_addresses(v4: [u8; 4], v6: [u8; 16], bits4 in 0_u8..=32, bits6 in 0_u8..=128) {
        let stored = [&[STORED_V4, bits4][..], &v4].concat();
        prop_assert_eq!(Inet::from_stored(&stored), Some(Inet::V4(v4, bits4)));
        let stored = [&[STORED_V6, bits6][..], &v6].concat();
        prop_assert_eq!(Inet::from_stored(&stored), Some(Inet::V6(v6, bits6)));
    }

    #[test]
    fn takes_nothing_else_for_a_stored_address(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
        let valid = match bytes.as_slice() {
            [STORED_V4, prefix, address @ ..] => *prefix <= 32 && address.len() == 4,
            [STORED_V6, prefix, address @ ..] => *prefix <= 128 && address.len() == 16,
            _ => false,
        };
        prop_assert_eq!(Inet::from_stored(&bytes).is_some(), valid);
    }

    #[test]
    fn never_panics(text in "\\PC*") {
        Inet::parse(&text);
    }
}
