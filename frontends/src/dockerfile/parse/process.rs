//! RUN and HEALTHCHECK.

use cbs_image::config::Healthcheck;

use super::super::ast::{CommandForm, Device, Heredoc, Network, RawMount, Run, Security, Word};
use super::super::go::{self, meant, quote};
use super::super::source::Complaint;
use super::flags::{Flags, Kind};
use super::instruction::Statement;
use super::mount;

impl Statement<'_> {
    pub(super) fn run(&self, heredocs: Vec<Heredoc>) -> Result<Run, Complaint> {
        let command = self.command_line(self.rest, heredocs)?;
        let known = [
            ("mount", Kind::Values),
            ("network", Kind::Value),
            ("security", Kind::Value),
            ("device", Kind::Values),
        ];
        let flags = Flags::parse(&self.flags, &known)?;
        let mounts = flags.all("mount").map(|text| {
            let from = mount::source_of(&text.value).map_err(|message| Complaint::new(message).at(text.span))?;
            Ok(RawMount {
                text: text.clone(),
                from,
            })
        });
        let network = match flags.get("network") {
            None => Network::Default,
            Some(word) => match word.value.as_str() {
                "default" => Network::Default,
                "none" => Network::None,
                "host" => Network::Host,
                other => {
                    return Err(Complaint::new(format!(
                        "invalid network mode {}{}",
                        quote(other),
                        meant(other, &["default", "none", "host"])
                    ))
                    .at(word.span));
                }
            },
        };
        let security = match flags.get("security") {
            None => Security::Sandbox,
            Some(word) => match word.value.as_str() {
                "sandbox" => Security::Sandbox,
                "insecure" => Security::Insecure,
                other => {
                    return Err(Complaint::new(format!(
                        "security {} is not valid{}",
                        quote(other),
                        meant(other, &["sandbox", "insecure"])
                    ))
                    .at(word.span));
                }
            },
        };
        Ok(Run {
            command,
            mounts: mounts.collect::<Result<_, Complaint>>()?,
            network,
            security,
            devices: flags.all("device").map(device).collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn healthcheck(&self) -> Result<Healthcheck, Complaint> {
        let text = self.rest.text();
        if text.is_empty() {
            return Err(self.needs("at least one argument"));
        }
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let command = self.command_line(self.rest.from(end).trim(), Vec::new())?;
        let kind = text[..end].to_uppercase();
        if kind == "NONE" {
            if !command.args.is_empty() {
                return Err(Complaint::new("HEALTHCHECK NONE takes no arguments").at(self
                    .rest
                    .from(end)
                    .trim()
                    .span()));
            }
            return Ok(Healthcheck {
                test: vec![kind],
                ..Healthcheck::default()
            });
        }
        let names = ["interval", "timeout", "start-period", "start-interval", "retries"];
        let flags = Flags::parse(&self.flags, &names.map(|name| (name, Kind::Value)))?;
        if kind != "CMD" {
            let message = format!("Unknown type {} in HEALTHCHECK (try CMD)", quote(&kind));
            return Err(Complaint::new(message).at(self.rest.part(0, end).span()));
        }
        if command.args.is_empty() {
            return Err(Complaint::new("Missing command after HEALTHCHECK CMD").at(self.rest.span()));
        }
        let kind = match command.form {
            CommandForm::Exec => "CMD",
            CommandForm::Shell => "CMD-SHELL",
        };
        let mut test = vec![kind.to_owned()];
        test.extend(command.args);
        Ok(Healthcheck {
            test,
            interval: interval(&flags, "interval")?,
            timeout: interval(&flags, "timeout")?,
            start_period: interval(&flags, "start-period")?,
            start_interval: interval(&flags, "start-interval")?,
            retries: retries(&flags)?,
        })
    }
}

fn interval(flags: &Flags, name: &str) -> Result<i64, Complaint> {
    let Some(word) = flags.value(name) else { return Ok(0) };
    let nanoseconds = go::parse_duration(&word.value).ok_or_else(|| {
        Complaint::new(format!(
            "invalid duration {} for --{name} (such as 30s, 5m or 1h)",
            quote(&word.value)
        ))
        .at(word.span)
    })?;
    if nanoseconds != 0 && nanoseconds < 1_000_000 {
        return Err(Complaint::new(format!("Interval {} cannot be less than 1ms", quote(name))).at(word.span));
    }
    Ok(nanoseconds)
}

fn retries(flags: &Flags) -> Result<i64, Complaint> {
    let Some(word) = flags.value("retries") else {
        return Ok(0);
    };
    match word.value.parse::<i32>() {
        Ok(count) if count >= 0 => Ok(count.into()),
        Ok(count) => Err(Complaint::new(format!("--retries cannot be negative ({count})")).at(word.span)),
        Err(_) => Err(Complaint::new(format!("invalid number {} for --retries", quote(&word.value))).at(word.span)),
    }
}

/// `NAME`, `name=NAME`, and `required`.
fn device(word: &Word) -> Result<Device, Complaint> {
    let complain = |message: String| Complaint::new(message).at(word.span);
    let fields = go::csv_fields(&word.value).ok_or_else(|| {
        complain("failed to parse csv devices: an empty value, or a quote that is not closed".to_owned())
    })?;
    let mut device = Device::default();
    for field in fields {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None) => device.required = true,
            ("required", Some(value)) => {
                device.required = go::parse_bool(value).ok_or_else(|| {
                    complain(format!(
                        "invalid value for required: {value} (there are true and false)"
                    ))
                })?;
            }
            ("name", Some(value)) if device.name.is_empty() => device.name = value.to_owned(),
            ("name", Some(_)) => return Err(complain(format!("device name already set to {}", device.name))),
            // A name such as `vendor.com/gpu=0` holds an equals sign itself.
            _ if device.name.is_empty() => device.name = field,
            (_, None) => return Err(complain(format!("invalid field '{field}' must be a key=value pair"))),
            (key, Some(_)) => {
                let hint = meant(key, &["name", "required"]);
                return Err(complain(format!("unexpected key '{key}' in '{field}'{hint}")));
            }
        }
    }
    Ok(device)
}
