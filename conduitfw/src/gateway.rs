//! The addresses of the machine itself, which make up the zone `gateway`.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

/// The gateway's addresses: those of the policy, else those of the machine as it is now.
pub(crate) fn gateway_addresses(given: Option<&[IpAddr]>) -> Vec<IpAddr> {
    if let Some(addresses) = given {
        return addresses.to_vec();
    }
    let mut addresses: Vec<IpAddr> = match getifaddrs() {
        Ok(interfaces) => interfaces
            .filter_map(|interface| {
                let address = interface.address?;
                let v4 = address
                    .as_sockaddr_in()
                    .map(|address| IpAddr::V4(address.ip()));
                v4.or_else(|| {
                    address
                        .as_sockaddr_in6()
                        .map(|address| IpAddr::V6(address.ip()))
                })
            })
            .filter(|address| !address.is_loopback())
            .collect(),
        Err(error) => {
            tracing::warn!("the machine's addresses cannot be read: {error}");
            Vec::new()
        }
    };
    addresses.sort();
    addresses.dedup();
    addresses
}

/// Link-local addresses come and go with each interface, and no policy depends on them.
pub(crate) fn routable(addresses: &[IpAddr]) -> impl Iterator<Item = &IpAddr> {
    addresses.iter().filter(|address| match address {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    })
}
