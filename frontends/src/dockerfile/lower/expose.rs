//! EXPOSE.

use cbs_image::config::Empty;

use super::super::ast::{Head, Word};
use super::super::go::{list, quote};
use super::super::lint::LintRule;
use super::super::source::Complaint;
use super::Convert;
use super::state::{Layer, StageState};

/// A port as `[ip:][host:]port[-port][/protocol]`.
struct Port<'t> {
    /// Addresses and host ports mean nothing here, and still must be right.
    address: &'t str,
    host: &'t str,
    ports: &'t str,
    protocol: &'t str,
}

impl Convert<'_> {
    pub(super) fn expose(&mut self, stage: &mut StageState<'_>, head: &Head, words: &[Word]) -> Result<(), Complaint> {
        let mut exposed = Vec::new();
        for word in words {
            let expansion = self.shell.expand(&word.value, &stage.env);
            let expansion = expansion.map_err(|error| super::stages::shell_complaint(&error).at(word.span))?;
            for text in &expansion.words {
                let port = Port::parse(text).map_err(|message| Complaint::new(message).at(word.span))?;
                self.check_port(head, text, &port);
                exposed.extend(
                    port.unfold(text)
                        .map_err(|message| Complaint::new(message).at(word.span))?,
                );
            }
        }
        stage
            .image
            .config
            .exposed_ports
            .extend(exposed.iter().map(|port| (port.clone(), Empty {})));
        stage.commit(format!("EXPOSE {}", list(&exposed)), Layer::No, self.epoch);
        Ok(())
    }

    fn check_port(&mut self, head: &Head, text: &str, port: &Port<'_>) {
        if port.protocol != port.protocol.to_lowercase() {
            let detail = format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase");
            self.linter
                .warn(&head.comments, LintRule::ExposeProtoCasing, head.lines, detail);
        }
        if !port.address.is_empty() || !port.host.is_empty() {
            let detail =
                format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'");
            self.linter
                .warn(&head.comments, LintRule::ExposeInvalidFormat, head.lines, detail);
        }
    }
}

impl<'t> Port<'t> {
    fn parse(text: &'t str) -> Result<Self, String> {
        let (front, ports) = text.rsplit_once(':').unwrap_or(("", text));
        let (address, host) = front.rsplit_once(':').unwrap_or(("", front));
        let (ports, protocol) = ports.split_once('/').unwrap_or((ports, ""));
        let invalid = |reason: &str| format!("invalid port: {}: {reason}", quote(text));
        if ports.is_empty() {
            return Err(invalid("no port specified"));
        }
        if !matches!(protocol.to_lowercase().as_str(), "" | "tcp" | "udp" | "sctp") {
            return Err(invalid(&format!(
                "invalid proto: {protocol} (there are tcp, udp, sctp)"
            )));
        }
        Ok(Self {
            address,
            host,
            ports,
            protocol: if protocol.is_empty() { "tcp" } else { protocol },
        })
    }

    /// Each port of the range, with its protocol.
    fn unfold(&self, text: &str) -> Result<Vec<String>, String> {
        let bare = self
            .address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(self.address);
        if !bare.is_empty() && bare.parse::<std::net::IpAddr>().is_err() {
            return Err(format!("invalid IP address: {}", self.address));
        }
        let (first, last) = range(self.ports).ok_or_else(|| format!("invalid containerPort: {}", self.ports))?;
        if !self.host.is_empty() {
            let (host_first, host_last) = range(self.host).ok_or_else(|| format!("invalid hostPort: {}", self.host))?;
            if first != last && last - first != host_last - host_first {
                return Err(format!(
                    "invalid ranges specified for container and host ports in {text}"
                ));
            }
        }
        let protocol = self.protocol.to_lowercase();
        Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let read = |text: &str| {
            Port::parse(text)
                .and_then(|port| port.unfold(text))
                .map(|ports| ports.join(" "))
        };
        let cases = [
            ("80", "80/tcp"),
            ("80/UDP", "80/udp"),
            ("8000-8002/sctp", "8000/sctp 8001/sctp 8002/sctp"),
            ("1.2.3.4:80:90", "90/tcp"),
            ("[::1]:80:90", "90/tcp"),
            ("80-81:90-91", "90/tcp 91/tcp"),
            ("80-89:90", "90/tcp"),
        ];
        for (text, want) in cases {
            assert_eq!(read(text).as_deref(), Ok(want), "{text}");
        }
        for bad in [
            "99999",
            "",
            "/tcp",
            "80/xyz",
            "90-80",
            "a",
            "1:2:3",
            "x:80",
            "80-82:90-91",
            "-1",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
