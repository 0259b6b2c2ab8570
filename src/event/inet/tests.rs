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
    fn displays_what_it_reads(v4: [u8; 4], v6: [u8; 16], bits4 in 0_u8..=32, bits6 in 0_u8..=128) {
        for inet in [Inet::V4(v4, bits4), Inet::V6(v6, bits6)] {
            prop_assert_eq!(Inet::parse(&inet.to_string()), Some(inet));
        }
    }

    #[test]
    fn never_panics(text in "\\PC*") {
        Inet::parse(&text);
    }
}
