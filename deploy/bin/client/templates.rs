//! `aircheck template …`

use std::error::Error;

use proto::v1::templates_client::TemplatesClient;
use proto::v1::{
    CreateTemplateRequest, DeleteTemplateRequest, FormatSettings, GetTemplateRequest, ListTemplatesRequest, Template,
    TemplateRef, UpdateTemplateRequest, template_ref,
};
use serde_json::{Value, json};
use shared::template::Format;

use super::{Done, PAGE, connect, format_name, instant, print, said, table};
use crate::cli::{HlsSegments, Mp4Stitch, TemplateCommand, TemplateSpec};

pub(crate) async fn run(command: TemplateCommand) -> Done {
    match command {
        TemplateCommand::Create(args) => {
            let request = CreateTemplateRequest {
                spec: Some(spec(&args)?),
            };
            let answer = TemplatesClient::new(connect(&args.client)?)
                .create_template(request)
                .await
                .map_err(said)?;
            show(&args.client, answer.into_inner().template)
        }
        TemplateCommand::Update(args) => {
            let request = UpdateTemplateRequest {
                template: Some(named(&args.name)),
                spec: Some(spec(&args)?),
            };
            let answer = TemplatesClient::new(connect(&args.client)?)
                .update_template(request)
                .await
                .map_err(said)?;
            show(&args.client, answer.into_inner().template)
        }
        TemplateCommand::Get { template, client } => {
            let request = GetTemplateRequest {
                template: Some(named(&template)),
            };
            let answer = TemplatesClient::new(connect(&client)?)
                .get_template(request)
                .await
                .map_err(said)?;
            show(&client, answer.into_inner().template)
        }
        TemplateCommand::Delete { template, client } => {
            let request = DeleteTemplateRequest {
                template: Some(named(&template)),
            };
            TemplatesClient::new(connect(&client)?)
                .delete_template(request)
                .await
                .map_err(said)?;
            print(&client, &json!({ "deleted": template }), || {
                format!("template {template} deleted\n")
            })
        }
        TemplateCommand::List { client } => {
            let mut service = TemplatesClient::new(connect(&client)?);
            let (mut all, mut page_token) = (Vec::new(), String::new());
            loop {
                let request = ListTemplatesRequest {
                    page_size: PAGE,
                    page_token,
                };
                let page = service.list_templates(request).await.map_err(said)?.into_inner();
                all.extend(page.templates);
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            let document = json!({ "templates": all.iter().map(document).collect::<Vec<_>>() });
            print(&client, &document, || {
                table(&["name", "formats", "id"], &all.iter().map(row).collect::<Vec<_>>())
            })
        }
    }
}

/// A template as the command line means it: an id if it looks like one, else a name.
pub(crate) fn named(text: &str) -> TemplateRef {
    let by = match text.parse::<shared::ids::TemplateId>() {
        Ok(id) => template_ref::By::TemplateId(id.to_string()),
        Err(_) => template_ref::By::Name(text.to_owned()),
    };
    TemplateRef { by: Some(by) }
}

fn seconds(what: &str, time: humantime::Duration) -> Result<u32, Box<dyn Error + Send + Sync>> {
    u32::try_from(time.as_secs()).map_err(|_| format!("{what} of {time} is too long").into())
}

fn spec(args: &TemplateSpec) -> Result<proto::v1::TemplateSpec, Box<dyn Error + Send + Sync>> {
    let formats = [
        (args.flv, Format::Flv, args.flv_interval),
        (args.hls, Format::Hls, None),
        (args.mp4, Format::Mp4, args.mp4_interval),
        (args.aac, Format::Aac, args.aac_interval),
        (args.mp3, Format::Mp3, args.mp3_interval),
    ];
    let mut on = Vec::new();
    for (wanted, format, interval) in formats {
        if !wanted {
            if interval.is_some() {
                return Err(format!("--{0}-interval is given without --{0}", format.as_str()).into());
            }
            continue;
        }
        let mut settings = shared::template::FormatSettings::default();
        if let Some(interval) = interval.or(args.interval) {
            settings.record_interval_s = seconds("an interval", interval)?;
        }
        if let (Format::Hls, Some(wait)) = (format, args.hls_continue) {
            settings.flow_continue_s = seconds("--hls-continue", wait)?;
        }
        if let Some(storage) = args.storage {
            settings.storage_time_s = seconds("--storage", storage)?;
        }
        on.push(FormatSettings {
            format: proto::v1::Format::from(format).into(),
            record_interval_s: settings.record_interval_s,
            storage_time_s: settings.storage_time_s,
            file_name: args
                .file_name
                .clone()
                .unwrap_or_else(|| settings.file_name.as_str().to_owned()),
            flow_continue_s: settings.flow_continue_s,
            hls_segments: match (format, args.hls_segments) {
                (Format::Hls, Some(HlsSegments::Fmp4)) => proto::v1::HlsSegments::Fmp4,
                (Format::Hls, _) => proto::v1::HlsSegments::Ts,
                _ => proto::v1::HlsSegments::Unspecified,
            }
            .into(),
            mp4_stitch: match (format, args.mp4_stitch) {
                (Format::Mp4, Some(Mp4Stitch::Keep)) => proto::v1::Mp4Stitch::Keep,
                (Format::Mp4, Some(Mp4Stitch::Close)) => proto::v1::Mp4Stitch::Close,
                _ => proto::v1::Mp4Stitch::Unspecified,
            }
            .into(),
            storage_class: args.storage_class.clone().unwrap_or_default(),
        });
    }
    if args.hls_segments.is_some() && !args.hls {
        return Err("--hls-segments is given without --hls".into());
    }
    if args.mp4_stitch.is_some() && !args.mp4 {
        return Err("--mp4-stitch is given without --mp4".into());
    }
    if args.hls_continue.is_some() && !args.hls {
        return Err("--hls-continue is given without --hls".into());
    }
    Ok(proto::v1::TemplateSpec {
        name: args.name.clone(),
        description: args.description.clone(),
        formats: on,
        place: args.place.clone().unwrap_or_default(),
    })
}

fn formats(template: &Template) -> Vec<&FormatSettings> {
    template
        .spec
        .as_ref()
        .map(|s| s.formats.iter().collect())
        .unwrap_or_default()
}

/// `ts` or `fmp4`.
fn segments(settings: &FormatSettings) -> &'static str {
    match settings.hls_segments() {
        proto::v1::HlsSegments::Fmp4 => "fmp4",
        _ => "ts",
    }
}

/// `keep` or `close`; none: files for each push.
fn stitched(settings: &FormatSettings) -> Option<&'static str> {
    match settings.mp4_stitch() {
        proto::v1::Mp4Stitch::Keep => Some("keep"),
        proto::v1::Mp4Stitch::Close => Some("close"),
        proto::v1::Mp4Stitch::Unspecified => None,
    }
}

fn document(template: &Template) -> Value {
    let settings = |f: &&FormatSettings| {
        json!({
            "format": format_name(f.format),
            "record_interval_s": f.record_interval_s,
            "storage_time_s": f.storage_time_s,
            "file_name": f.file_name,
            "flow_continue_s": f.flow_continue_s,
            "hls_segments": segments(f),
            "mp4_stitch": stitched(f),
            "storage_class": f.storage_class,
        })
    };
    let spec = template.spec.clone().unwrap_or_default();
    json!({
        "template_id": template.template_id,
        "name": spec.name,
        "description": spec.description,
        "formats": formats(template).iter().map(settings).collect::<Vec<_>>(),
        "place": spec.place,
        "created": instant(template.created_ms),
        "updated": instant(template.updated_ms),
    })
}

fn row(template: &Template) -> Vec<String> {
    let names: Vec<String> = formats(template).iter().map(|f| format_name(f.format)).collect();
    let names = if names.is_empty() {
        "none: does not record".to_owned()
    } else {
        names.join(",")
    };
    vec![
        template.spec.as_ref().map(|s| s.name.clone()).unwrap_or_default(),
        names,
        template.template_id.clone(),
    ]
}

fn show(client: &crate::cli::Client, template: Option<Template>) -> Done {
    let template = template.ok_or("the coordinator sent no template")?;
    print(client, &document(&template), || {
        let mut text = table(&["name", "formats", "id"], &[row(&template)]);
        if let Some(place) = template
            .spec
            .as_ref()
            .map(|spec| &spec.place)
            .filter(|place| !place.is_empty())
        {
            text += &format!("  in the place {place}\n");
        }
        for f in formats(&template) {
            let storage = if f.storage_time_s == 0 {
                "for ever".to_owned()
            } else {
                format!("{} s", f.storage_time_s)
            };
            let cut = match (f.format == i32::from(proto::v1::Format::Hls), stitched(f)) {
                (true, _) => format!(
                    "{} segments, waits {} s for its stream to come back",
                    segments(f),
                    f.flow_continue_s
                ),
                (false, Some("keep")) => "one of all pushes, with the time between them".to_owned(),
                (false, Some(_)) => "one of all pushes, without the time between them".to_owned(),
                (false, None) => format!("cut every {} s", f.record_interval_s),
            };
            let class = match f.storage_class.as_str() {
                "" => String::new(),
                class => format!(" as {class}"),
            };
            text += &format!(
                "  {}: {cut}, kept {storage}{class}, named {}\n",
                format_name(f.format),
                f.file_name
            );
        }
        text
    })
}
