// The command that does what was asked once more.

import { KEY, urlOf } from "./elements.js";

const quoted = (text) => /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;

export const LINES = {
  curl(asked, output) {
    const given = Object.entries(asked.files);
    const values = Object.entries({ model: asked.model, ...asked.options });
    const parts = given.length
      ? [...given.map(([key, file]) => `-F ${quoted(`${key}=@${file.name}`)}`), ...values.map(([key, value]) => `-F ${quoted(`${key}=${value}`)}`)]
      : ["-H 'content-type: application/json'", `-d ${quoted(JSON.stringify(Object.fromEntries(values)))}`];
    const key = sessionStorage.getItem(KEY) ? ['-H "Authorization: Bearer $GENIMG_API_KEY"'] : [];
    return ["curl", urlOf(asked.operation.path), ...key, ...parts, `-o ${output}`].join(" ");
  },
  python(asked, output) {
    const text = JSON.stringify;
    const files = Object.entries(asked.files).map(([key, file]) => `${text(key)}: open(${text(file.name)}, "rb")`);
    const python = (value) => value === true ? "True" : value === false ? "False" : text(value);
    const values = Object.entries({ model: asked.model, ...asked.options }).map(([key, value]) => `${text(key)}: ${files.length ? text(String(value)) : python(value)}`);
    const key = sessionStorage.getItem(KEY);
    return [
      ...(key ? ["import os", ""] : []), "import requests", "",
      "answer = requests.post(", `    ${text(urlOf(asked.operation.path))},`,
      ...(files.length ? [`    files={${files.join(", ")}},`, `    data={${values.join(", ")}},`] : [`    json={${values.join(", ")}},`]),
      ...(key ? [`    headers={"Authorization": f"Bearer {os.environ['GENIMG_API_KEY']}"},`] : []),
      ")", "answer.raise_for_status()", `open(${text(output)}, "wb").write(answer.content)`,
    ].join("\n");
  },
  genimg(asked, output) {
    const { name, takes, optional } = asked.operation;
    const reads = Object.values(takes).some((kind) => ["picture", "frames"].includes(kind)) || Object.keys(takes).some((key) => !optional.includes(key));
    const given = Object.entries(asked.files);
    const parts = ["genimg", name];
    if (!reads) parts.push(quoted(asked.model));
    for (const [key, file] of given) parts.push(...(key === "mask" || !reads ? [`--${key}`] : []), quoted(file.name));
    if (reads) parts.push("-m", quoted(asked.model));
    for (const [key, value] of Object.entries(asked.options)) {
      const flag = key.length === 1 ? `-${key}` : `--${key.replaceAll("_", "-")}`;
      parts.push(...(value === true ? [flag] : [flag, quoted(String(value))]));
    }
    return [...parts, "-o", output, "--server", quoted(urlOf("").replace(/\/$/, ""))].join(" ");
  },
};
