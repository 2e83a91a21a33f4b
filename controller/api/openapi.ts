/** OpenAPI of this API. */
export function openApi(): unknown {
  return {};
}
